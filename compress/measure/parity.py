"""How near the exported files are to exact arithmetic, and to each other: values that a report keeps."""

from dataclasses import dataclass

WITHIN_ONE = 0.999
MEAN_LSB = 1.0
MASKS = 0.997
NEARLY = 0.998


@dataclass(frozen=True)
class LayerParity:
    """One operator of one runtime against exact arithmetic on the very integers that the runtime fed it."""

    layer: str
    op: str
    runtime: str
    within_one: float  # share of values that differ by at most 1
    largest_lsb: int

    @property
    def passed(self) -> bool:
        return self.within_one >= WITHIN_ONE


@dataclass(frozen=True)
class EndParity:
    """Two ways from the same pixels to the class map: mean and largest difference, and the masks' agreement. `nearly`:
    the share of pixels whose class stands within a pixel of the same place in the other mask. One step of the last
    logits moves an edge between two classes, and of many classes there are many; None in records of old."""

    pair: str
    images: int
    mean_lsb: float
    largest_lsb: int
    masks: float
    nearly: float | None = None

    @property
    def passed(self) -> bool:
        agree = self.masks >= MASKS or (self.nearly or 0.0) >= NEARLY
        return self.mean_lsb <= MEAN_LSB and agree


@dataclass(frozen=True)
class Parity:
    """`stored` lists what a file says otherwise than the graph; `layers` are in execution order; `not_run` says which
    file is not run, and why. By name, `equal` are the files that were read back and say what the graph says, `unread`
    those of a format that cannot be read back."""

    stored: tuple[str, ...]
    layers: tuple[LayerParity, ...]
    ends: tuple[EndParity, ...]
    not_run: tuple[str, ...] = ()
    equal: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        parts: tuple[LayerParity | EndParity, ...] = (*self.layers, *self.ends)
        return not self.stored and bool(parts) and all(part.passed for part in parts)

    def first_parting(self) -> LayerParity | None:
        """The earliest layer that a runtime computes otherwise."""
        return next((layer for layer in self.layers if not layer.passed), None)
