"""What a file computes, as steps that read one another: the form in which a file and a graph are compared.

Names play no part: a step is what it does and what it reads, down to the graph's input, so two files are equal where
they compute the same by the same operators, however their tensors are called and in whatever order they are stored.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CONSTANT, INPUT, OPERATOR, TENSOR, NOTHING = "constant", "input", "operator", "tensor", "nothing"


@dataclass(frozen=True, eq=False)
class Step:
    """`facts`: all that is said of it, by name, as `plain` has it; `inputs`: what it reads, in order. `label` tells a
    reader which one it is, and is not compared. Steps of equal `digest` compute the same from the same."""

    kind: str
    facts: Mapping[str, Any]
    inputs: tuple["Step", ...] = ()
    label: str = ""
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        text = repr((self.kind, sorted(self.facts.items()), [given.digest for given in self.inputs]))
        object.__setattr__(self, "digest", hashlib.sha256(text.encode()).hexdigest())


ABSENT = Step(NOTHING, {})
"""An optional input that is left out."""
MISSING = Step(NOTHING, {"": "missing"})
"""One that no earlier step gives."""


@dataclass(frozen=True)
class Listing:
    """A file: the steps that give its outputs, all the operators in it, and what is said of the whole."""

    outputs: tuple[Step, ...]
    operators: tuple[Step, ...]
    facts: Mapping[str, Any]


def plain(value: Any) -> Any:
    """A field of a parsed file so that equal content is equal: nothing and an empty list are the same, and a real
    number is its digits, so that NaN equals itself."""
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if value is None or isinstance(value, int | bytes):
        return value
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list | tuple):
        return tuple(plain(item) for item in value) or None
    return (type(value).__name__, *sorted((key, plain(item)) for key, item in vars(value).items()))


def array(value: np.ndarray) -> tuple[Any, ...]:
    """A constant as a fact."""
    return value.dtype.str, value.shape, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()


def unlike(wanted: Listing, found: Listing) -> list[str]:
    """Where `found` is not what is wanted, in the words of the wanted labels; empty where it is."""
    whole = [f"{name} differs from the graph's" for name in _unequal(wanted.facts, found.facts)]
    if len(wanted.outputs) != len(found.outputs):
        whole.append(f"{len(found.outputs)} outputs, the graph has {len(wanted.outputs)}")
    known = {step.digest for step in _reached(wanted.outputs)}
    seen: set[tuple[str, str]] = set()
    lines: list[str] = []
    waiting = list(zip(wanted.outputs, found.outputs))
    while waiting:
        ours, theirs = waiting.pop()
        if ours.digest == theirs.digest or (ours.digest, theirs.digest) in seen:
            continue
        seen.add((ours.digest, theirs.digest))
        lines += _apart(ours, theirs)
        if ours.kind == theirs.kind and ours.facts.get("operator") == theirs.facts.get("operator"):
            waiting += [pair for pair in zip(ours.inputs, theirs.inputs) if _same_place(*pair, known)]
            lines += _connections(ours, theirs, known)
    extra = len({id(step) for step in found.operators} - {id(step) for step in _reached(found.outputs)})
    if extra:
        whole.append(f"{extra} operators that the graph does not have")
    return list(dict.fromkeys([*whole, *reversed(lines)]))


def _unequal(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    return [name for name in sorted({*ours, *theirs}) if ours.get(name, ABSENT) != theirs.get(name, ABSENT)]


def _apart(ours: Step, theirs: Step) -> list[str]:
    """What the two say otherwise of themselves."""
    if ours.kind != theirs.kind:
        return [f"{ours.label} is not in the file"]
    names = _unequal(ours.facts, theirs.facts)
    if ours.kind == OPERATOR and len(ours.inputs) != len(theirs.inputs):
        names.append("number of inputs")
    return [f"{ours.label} {name}".rstrip() + " differs from the graph's" for name in names]


def _same_place(ours: Step, theirs: Step, known: set[str]) -> bool:
    """Whether the second stands where the first should, changed or not; otherwise the file connects another one."""
    return ours.kind == theirs.kind and (ours.kind in (CONSTANT, INPUT) or theirs.digest not in known)


def _connections(ours: Step, theirs: Step, known: set[str]) -> Iterator[str]:
    for place, (wanted, found) in enumerate(zip(ours.inputs, theirs.inputs), 1):
        if wanted.digest != found.digest and not _same_place(wanted, found, known):
            yield f"{ours.label} input {place} differs from the graph's"


def _reached(outputs: Sequence[Step]) -> list[Step]:
    """The steps that the outputs depend on."""
    found: dict[int, Step] = {}
    waiting = list(outputs)
    while waiting:
        step = waiting.pop()
        if id(step) not in found:
            found[id(step)] = step
            waiting += step.inputs
    return list(found.values())
