"""What an exported file is, as the manifest states it."""

from dataclasses import dataclass, replace
from pathlib import Path

LOGITS = "logits"
"""Activation of an output that has none: a single channel of it is an object above 0, not above 0.5."""


@dataclass(frozen=True)
class IOSpec:
    """Input or output of a file. `mean` and `std` are what the app applies to 0..255 RGB values
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
    """An exported file."""

    path: Path
    format: str
    sha256: str
    size_bytes: int
    input: IOSpec
    output: IOSpec

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image that it reads."""
        return self.input.side("H"), self.input.side("W")

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
        was said before, counts first, so the best known is said first."""
        if not self.unknown_input:
            return self
        return replace(self, input=replace(self.input, mean=self.input.mean or mean, std=self.input.std or std))
