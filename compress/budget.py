"""Budgets as people write them, and the verdict on what was measured."""

import re
from dataclasses import dataclass

from compress.errors import BudgetError

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


def parse_size(text: str) -> int:
    """Bytes in "4MB" (4_000_000), "4MiB" (4_194_304), "900KB"; anything else is a BudgetError."""
    match = _SIZE.fullmatch(text)
    units = {unit.lower(): factor for unit, factor in _UNITS.items()}
    if not match or match[2].lower() not in units or float(match[1]) * units[match[2].lower()] < 1:
        raise BudgetError(f"budget {text!r} is not a size: write a positive number with a unit, such as 4MB or 4MiB")
    return int(float(match[1]) * units[match[2].lower()])


@dataclass(frozen=True)
class Budget:
    """The limits that every exported file must meet."""

    size_bytes: int | None = None

    @classmethod
    def parse(cls, texts: list[str]) -> "Budget":
        """The tightest of several budgets, as given with repeated `--budget`."""
        return cls(size_bytes=min((parse_size(text) for text in texts), default=None))


@dataclass(frozen=True)
class Check:
    """One limit and what was measured; a missing measurement never passes."""

    name: str
    measured: float | None
    limit: float
    unit: str
    passed: bool


@dataclass(frozen=True)
class Verdict:
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def judge(sizes_bytes: dict[str, int | None], budget: Budget) -> Verdict:
    """Verdict on the size of every exported file, named by its format."""
    if budget.size_bytes is None:
        return Verdict(())
    limit = budget.size_bytes
    return Verdict(
        tuple(
            Check(f"{name} size", size, limit, "bytes", size is not None and size <= limit)
            for name, size in sizes_bytes.items()
        )
    )
