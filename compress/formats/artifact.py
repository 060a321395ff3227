"""What an exported file is, as the manifest states it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compress.errors import MeasureError
from compress.flags import MOST_CHANNELS

LOGITS = "logits"
"""Activation of an output that has none: a single channel of it is an object above 0, not above 0.5."""


IMAGE_EXPECTED = (
    f"an RGB image, [1, H, W, 3] or [1, 3, H, W], or one of another 1 to {MOST_CHANNELS} channels is expected"
)


def image_layout(shape: Sequence[int | None], channels_last: bool) -> str | None:
    """Of an image of this shape, "NHWC" or "NCHW": where the three colours are, or else as many channels as an image
    may have, the fewer of both. `channels_last`: what is usual, and counts where both can be. None: it is no image."""
    usual = ("NHWC", "NCHW") if channels_last else ("NCHW", "NHWC")
    if len(shape) != 4:
        return None
    counts = {layout: shape[layout.index("C")] for layout in usual}
    possible = {
        layout: count for layout, count in counts.items() if isinstance(count, int) and 0 < count <= MOST_CHANNELS
    }
    return min(possible, key=lambda layout: (possible[layout] != 3, possible[layout]), default=None)


def named_channels(count: int) -> str:
    """What an image of so many channels is called."""
    return {1: "grey", 3: "RGB"}.get(count, f"{count} channels,")


@dataclass(frozen=True)
class IOSpec:
    """Input or output of a file. `mean` and `std` are what the app applies to 0..255 values of each channel
    before a float input (None for uint8); `scale` and `zero_point` are those of uint8 values."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str
    scale: float | None = None
    zero_point: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    activation: str | None = None

    def side(self, axis: str) -> int:
        """Its size along "H", "W" or "C"."""
        return self.shape[self.layout.index(axis)]


@dataclass(frozen=True)
class Artifact:
    """An exported file. `macs`: multiply-accumulates of one inference; None: they cannot be counted."""

    path: Path
    format: str
    sha256: str
    size_bytes: int
    input: IOSpec
    output: IOSpec
    macs: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image that it reads."""
        return self.input.side("H"), self.input.side("W")

    @property
    def channels(self) -> int:
        """Of the image that it reads."""
        return self.input.side("C")

    @property
    def classes(self) -> int:
        """How many classes its map tells apart: a single channel is one class against background."""
        return max(2, self.output.side("C"))

    @property
    def unknown_input(self) -> bool:
        """Whether nothing says yet which numbers a float32 input reads."""
        return self.input.dtype == "float32" and (self.input.mean is None or self.input.std is None)

    def reading(self, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> "Artifact":
        """The same where a float32 input reads (pixel - mean) / std, of 0..255 values. What the file itself states, or
        was said before, counts first, so the best known is said first. Raises MeasureError for other numbers of values
        than channels."""
        if not self.unknown_input:
            return self
        if wrong := next((values for values in (mean, std) if values and len(values) != self.channels), None):
            raise MeasureError(
                f"{self.path}: reads {self.channels} channels, and mean or std has {len(wrong)} values; give as many"
            )
        return replace(self, input=replace(self.input, mean=self.input.mean or mean, std=self.input.std or std))
