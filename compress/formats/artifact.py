"""What an exported file is, as the manifest states it."""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Artifact:
    """An exported file."""

    path: Path
    format: str
    sha256: str
    size_bytes: int
    input: IOSpec
    output: IOSpec
