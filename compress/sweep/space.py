"""What a sweep goes through: sizes, and whatever else of `compress run` is given as a list or a range."""

import itertools
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from compress.budget import Limit, parse_limit
from compress.errors import BudgetError, RecipeError
from compress.flags import square_or_not

Setting = Mapping[str, str]
"""Of a trial: the flags of `compress run` that it has besides what all have, and what each is given."""

BUDGET, INPUT_SIZE, MACS_SHARE, SEED = "--budget", "--input-size", "--macs-share", "--seed"
_LETTERS = {MACS_SHARE: "m", SEED: "s"}
"""Before a value in the name of a trial, which would not tell what it is."""
MOST = 100_000
"""Trials, and seeds."""


@dataclass(frozen=True)
class Axis:
    """A flag of `compress run`, and the `values` to give it; or, where there are none, any from `low` to `high`."""

    flag: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0

    def __str__(self) -> str:
        return ",".join(self.values) or f"{self.low:g}:{self.high:g}"


@dataclass(frozen=True)
class Space:
    """All settings that a sweep may try, and how many of them it does."""

    axes: tuple[Axis, ...]
    trials: int

    @property
    def ranges(self) -> bool:
        return any(not axis.values for axis in self.axes)

    def grid(self) -> list[dict[str, str]]:
        """Every combination of the listed values, the first axis changing slowest."""
        flags = [axis.flag for axis in self.axes]
        return [dict(zip(flags, values)) for values in itertools.product(*(axis.values for axis in self.axes))]


def space(budget: Axis, input_size: str | None, macs_share: str | None, seeds: int | None, trials: int | None) -> Space:
    """What the flags of `compress sweep` say. Raises RecipeError."""
    axes = [budget]
    if input_size is not None:
        axes.append(_listed(INPUT_SIZE, input_size, _size, "256,320"))
    if macs_share is not None:
        axes.append(_shares(macs_share))
    if seeds is not None:
        axes.append(Axis(SEED, tuple(map(str, range(_counted("--seeds", seeds))))))
    found = Space(tuple(axes), 0)
    if trials is None and found.ranges:
        raise RecipeError(f"{MACS_SHARE} {macs_share}: a range has no end of values; say how many with --trials N")
    most = MOST if found.ranges else len(found.grid())
    return Space(found.axes, min(most, _counted("--trials", trials)) if trials is not None else most)


def budgets(texts: Sequence[str]) -> tuple[Axis, tuple[Limit, ...]]:
    """The sizes among budgets, each a limit or several with commas between them, and the limits that every trial has to
    meet. Raises BudgetError."""
    parts = [part for text in texts for part in _parts(BUDGET, text, "1MB,2MB,4MB")]
    limits = {part: parse_limit(part) for part in parts}
    sizes = [part for part in parts if limits[part].metric == "size"]
    if not sizes:
        raise BudgetError("no size to plan for: give some, such as --budget 1MB,2MB,4MB")
    others = tuple(limit for limit in limits.values() if limit.metric != "size")
    return _listed(BUDGET, ",".join(sizes), lambda text: limits[text].value, "1MB,2MB,4MB"), others


def name_of(setting: Setting) -> str:
    """As the folder of a trial is called: "2mb-320-m0.1-s0"."""
    return "-".join(_LETTERS.get(flag, "") + _short(value) for flag, value in setting.items())


def _short(value: str) -> str:
    height, _, width = value.partition("x")
    return height if height == width else "".join(c for c in value.lower() if c.isalnum() or c == ".")


def arguments_of(setting: Setting) -> tuple[str, ...]:
    return tuple(word for pair in setting.items() for word in pair)


def _size(text: str) -> tuple[int, int]:
    try:
        return square_or_not(text)
    except ArgumentTypeError as error:
        raise RecipeError(f"{INPUT_SIZE}: {error}") from None


def _shares(text: str) -> Axis:
    if ":" not in text:
        return _listed(MACS_SHARE, text, _share, "0.1,0.2")
    low, _, high = text.partition(":")
    first, last = _share(low), _share(high)
    if not first < last:
        raise RecipeError(f"{MACS_SHARE} {text}: the lowest share, then a higher one, such as 0.05:0.4")
    return Axis(MACS_SHARE, (), first, last)


def _share(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 1e-4 <= found <= 1:
        raise RecipeError(f"{MACS_SHARE} {text}: no share of the heavy model's operations, from 0.0001 to 1")
    return found


def _listed(flag: str, text: str, read: Callable[[str], object], example: str) -> Axis:
    values: dict[object, str] = {}
    for part in _parts(flag, text, example):
        if (value := read(part)) in values:
            raise RecipeError(f"{flag} {text}: {part} is {values[value]} again; name each value once")
        values[value] = part
    return Axis(flag, tuple(values.values()))


def _parts(flag: str, text: str, example: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if "" in parts:
        raise RecipeError(f"{flag} {text}: there is no value between two commas, or none at all; write {example}")
    return parts


def _counted(flag: str, number: int) -> int:
    if not 1 <= number <= MOST:
        raise RecipeError(f"{flag} {number}: from 1 to {MOST:,}")
    return number
