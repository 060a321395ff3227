"""What can go wrong, in one place.

CompressError
├── ModelError    a model file or architecture that cannot be loaded, traced or pruned
│   └── UnknownOperators  a model that consists of more than what is known here
├── DataError     images, masks or folders that cannot be used
├── RecipeError   a recipe or an option that makes no sense
├── BudgetError   a budget that cannot be parsed, or that no student can meet
├── ExportError   an operator or tensor that a file format cannot express
│   └── WriteError    a file that cannot be written where it is to lie
├── TrainError    training that left the finite numbers
├── MeasureError  a runtime that refused a file or died on it
├── RegistryError a registry, or a name in it, that cannot be used
└── SweepError    a sweep of which every trial failed, or whose trials cannot be run

Every message is one line that says what, where, and what to try; the command prints it on stderr
and exits with 2.
"""

from collections.abc import Mapping, Sequence


def one_line(text: str) -> str:
    """The text without what a terminal would not show as it is."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class CompressError(Exception):
    """Base of every error that a user can cause and mend. A name in it may hold anything; its text is one line."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class ModelError(CompressError):
    pass


class UnknownOperators(ModelError):
    """`unknown`: all of them, one each, "layer: operator aten.foo.default with this"; `known`: how many of each there
    are besides."""

    def __init__(self, text: str, unknown: Sequence[str], known: Mapping[str, int]):
        super().__init__(text)
        self.unknown, self.known = tuple(unknown), dict(known)


class DataError(CompressError):
    pass


class RecipeError(CompressError):
    pass


class BudgetError(CompressError):
    pass


class ExportError(CompressError):
    pass


class WriteError(ExportError):
    pass


class TrainError(CompressError):
    pass


class MeasureError(CompressError):
    pass


class RegistryError(CompressError):
    pass


class SweepError(CompressError):
    pass
