"""What an exported file is, as the manifest states it."""

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from compress.errors import ExportError

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


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write beside and move into place, so that a file under this name is never half a file.

    Raises ExportError where the folder cannot be written or the disk is full.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror}; choose another folder with --out") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def check_writable(out: Path) -> None:
    """Raises ExportError where the folder `out` cannot be made or written, before hours go into what it is for."""
    folder = out
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ExportError(f"{out}: cannot be written; choose another folder with --out")
