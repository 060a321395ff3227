"""The golden input of an output folder: one image, and what each file gives for it."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compress.files import write_whole
from compress.formats.artifact import Artifact
from compress.runtime.session import open_model

FILE = "golden.npz"


def write_golden(image: np.ndarray, artifacts: Sequence[Artifact], folder: Path) -> None:
    """golden.npz: `pixels`, uint8 [H, W, 3], and for each format the output that the file gives for it here, in the
    file's own shape and dtype, so that an app's test can assert the same. Raises WriteError, and MeasureError."""
    answers = {}
    for artifact in artifacts:
        session = open_model(artifact.path)
        answers[artifact.format] = session.run(session.prepare(image))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, pixels=image, **answers)  # type: ignore[arg-type]
    write_whole(folder / FILE, buffer.getvalue())


def read_golden(folder: Path) -> np.ndarray:
    """The image, uint8 [H, W, 3]."""
    with np.load(folder / FILE, allow_pickle=False) as golden:
        pixels: np.ndarray = golden["pixels"]
    return pixels
