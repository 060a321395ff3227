"""The README's picture: photographs, the heavy model's masks and the compressed one's, from the exported files.

    python benchmarks/figure.py RUN TEACHER.onnx OUT.jpg

RUN is the output folder of `compress run`; TEACHER.onnx the heavy model that the run left in the cache. The
photographs come with scikit-image: chelsea (CC0), coffee (CC0), astronaut and rocket (public domain, NASA).
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from compress.measure.evaluate import LabelledImages, evaluate_each
from compress.runtime.local import describe_in_child

SIZE = 320
GAP = 6
COLOUR = np.array([208, 28, 139])


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The object as it is, the background faded and the outline of the mask drawn."""
    faded = (image * 0.25 + 255 * 0.75).astype(np.uint8)
    result = np.where(mask[..., None] > 0, image, faded)
    edge = np.zeros(mask.shape, bool)
    for axis in (0, 1):
        edge |= np.abs(np.diff(mask.astype(int), axis=axis, append=0)) > 0
    result[edge] = COLOUR
    return result


def main(run: Path, teacher: Path, out: Path) -> None:
    names = ("chelsea", "coffee", "astronaut", "rocket")
    images = np.stack(
        [
            np.asarray(Image.fromarray(getattr(data, name)()).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
            for name in names
        ]
    )
    heavy = describe_in_child(teacher).reading((0.0,) * 3, (255.0,) * 3)
    files = {"heavy": heavy, "light": describe_in_child(run / "model.tflite")}
    on = LabelledImages(("background", "object"), lambda size, channels: images, masks=None)
    answers = evaluate_each(files, on, first="heavy")
    rows = [list(images)]
    rows += [list(map(overlay, images, each.predictions)) for each in answers.values()]
    white = 255 * np.ones((SIZE, GAP, 3), np.uint8)
    lines = [np.concatenate([part for image in row for part in (image, white)][:-1], axis=1) for row in rows]
    between = 255 * np.ones((GAP, lines[0].shape[1], 3), np.uint8)
    picture = np.concatenate([part for line in lines for part in (line, between)][:-1])
    Image.fromarray(picture).resize((picture.shape[1] * 2 // 3, picture.shape[0] * 2 // 3)).save(out, quality=85)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
