"""The golden input of an output folder: one image, and what each file gives for it."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compress.errors import ExportError
from compress.files import write_whole
from compress.formats.artifact import Artifact
from compress.runtime.local import Child

FILE = "golden.npz"


def write_golden(image: np.ndarray, artifacts: Sequence[Artifact], folder: Path) -> None:
    """golden.npz: `pixels`, uint8 [H, W, channels], and for each format the output that the file gives for it here, in
    the file's own shape and dtype, so that an app's test can assert the same. Raises WriteError, and MeasureError."""
    answers = {}
    for artifact in artifacts:
        with Child(artifact.path) as child:
            answers[artifact.format] = child.outputs(image)[child.output.name]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, pixels=image, **answers)  # type: ignore[arg-type]
    write_whole(folder / FILE, buffer.getvalue())


def read_golden(folder: Path) -> np.ndarray:
    """The image, uint8 [H, W, channels]. Raises ExportError for a file that is missing or damaged."""
    path = folder / FILE
    try:
        with np.load(path, allow_pickle=False) as golden:
            pixels: np.ndarray = golden["pixels"]
    except FileNotFoundError:
        raise ExportError(f"{path}: no such file; run again, or give --images") from None
    except Exception as error:  # zipfile, zlib and numpy raise whatever the bytes lead them to
        raise ExportError(f"{path}: is damaged ({type(error).__name__}); run again, or give --images") from None
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise ExportError(f"{path}: its pixels are {pixels.dtype} {list(pixels.shape)}, not an image; run again")
    return pixels
