"""What the values in the masks of a set mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress.errors import DataError
from compress.recipe import MasksSection

VOID = 255
"""The class id of pixels that count for nothing."""


@dataclass(frozen=True)
class Coding:
    """The class id of each value that is named, VOID where it counts for nothing: of numbers, or of `colours` as
    0xRRGGBB. Where none is named, numbers are class ids."""

    meanings: tuple[tuple[int, int], ...] = ()
    colours: bool = False

    @classmethod
    def of(cls, section: MasksSection, classes: Sequence[str]) -> "Coding | None":
        """What a recipe says; None where it says nothing. Raises ValueError where that does not fit the classes."""
        meanings = section.meanings(classes)
        ids = tuple((value, VOID if id is None else id) for value, id in sorted(meanings.items()))
        return cls(ids, section.of_colours) if meanings else None

    def ids(self, values: np.ndarray, mask: Path) -> np.ndarray:
        """Class ids, uint8, of the values in a mask, whole numbers of the same shape. Raises DataError for a value that
        is not named, and for a number that is no class id."""
        if not self.meanings:
            return _as_ids(values, mask)
        named, ids = np.array(self.meanings).T
        places = np.searchsorted(named, values).clip(max=len(named) - 1)
        unknown = values[named[places] != values]
        if unknown.size:
            raise DataError(f"{mask}: {self._unnamed(unknown)}")
        return ids.astype(np.uint8)[places]

    def _unnamed(self, unknown: np.ndarray) -> str:
        found, counts = np.unique(unknown, return_counts=True)
        more = f" and {unknown.size - counts[0]:,} are {len(found) - 1} other values" if len(found) > 1 else ""
        value = f"#{found[0]:06x}" if self.colours else str(found[0])
        return (
            f"{_pixels(counts[0])} {value}{more}, which neither masks nor ignore under [data] names; name it there, "
            "under ignore where it counts for nothing"
        )


def labels_of(one: int, labels: int) -> list[int]:
    """Those in a set of labels: bit i is label i."""
    return [label for label in range(labels) if one >> label & 1]


CLASS_IDS = Coding()
OBJECT_255 = Coding(((0, 0), (1, 1), (VOID, 1)))
"""Of two classes: the object is 255."""


def _as_ids(values: np.ndarray, mask: Path) -> np.ndarray:
    most = values.max(initial=0)
    wrong = most if most > VOID else values.min(initial=0)
    if not 0 <= wrong <= VOID:
        raise DataError(
            f"{mask}: class id {wrong} is more than a mask can hold; ids go from 0 to {VOID - 1}, others are named by "
            "masks under [data] in the recipe"
        )
    return values.astype(np.uint8)


def _pixels(count: int) -> str:
    return "1 pixel is" if count == 1 else f"{count:,} pixels are"
