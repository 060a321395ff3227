"""The images that a report shows: validation images, or photographs that may be published in their place."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress.data.folders import Dataset, photographs
from compress.data.images import RGB, Reading, Size, as_rgb, read_all, read_image, read_mask
from compress.formats.artifact import Artifact
from compress.measure.evaluate import Evaluation, LabelledImages, evaluate_each
from compress.report.pictures import Picture, photo_of, pick

PICTURES = 24


@dataclass(frozen=True)
class Photographs:
    """Photographs to show in place of validation images, at most 24."""

    paths: tuple[Path, ...]
    photos: tuple[bytes, ...]  # JPEG, in their own shape
    reading: Reading
    warnings: tuple[str, ...] = ()

    def pixels(self, size: Size) -> np.ndarray:
        """What a network reads of them at a size, uint8 [N, H, W, channels]."""
        return np.stack([read_image(path, size, self.reading) for path in self.paths])


def open_photographs(folder: Path, reading: Reading = RGB) -> Photographs:
    """The first 24 images in `folder`.

    Raises DataError for a missing or empty folder and, naming the file, for an image that cannot be read.
    """
    found, left_out = photographs(folder)
    paths = found[:PICTURES]
    whole = read_all(lambda path: read_image(path, reading=reading), paths, "reading pictures")
    photos = tuple(photo_of(as_rgb(image)) for image in whole)
    return Photographs(tuple(paths), photos, reading, left_out)


def pictures_of_photographs(
    shown: Photographs, heavy: Artifact, student: Artifact, classes: tuple[str, ...], multilabel: bool = False
) -> list[Picture]:
    """Runs both files on the photographs; the IoU is that of the student's mask with the teacher's. Raises
    MeasureError."""
    images = LabelledImages(classes, lambda size, channels: shown.pixels(size), None, multilabel)
    teacher, ours = evaluate_each({"teacher": heavy, "student": student}, images, first="teacher").values()
    return [
        Picture(path.name, photo, theirs, mask, None, iou)
        for path, photo, theirs, mask, iou in zip(
            shown.paths, shown.photos, teacher.predictions, ours.predictions, ours.iou, strict=True
        )
    ]


def pictures_of_validation(dataset: Dataset, teacher: Evaluation | None, student: Evaluation) -> list[Picture]:
    """24 of the validation images, the student's worst among them, in their own shape; without the teacher's masks
    where it cannot be asked."""
    pictures = []
    for index in pick(student.iou, PICTURES):
        sample = dataset.val[index]
        ours, mask = student.predictions[index], teacher.predictions[index] if teacher else None
        size = (ours if mask is None else mask).shape
        reference = read_mask(sample.mask, dataset.coding, size) if sample.mask else None
        photo = photo_of(as_rgb(read_image(sample.image, reading=dataset.reading)))
        pictures.append(Picture(sample.image.name, photo, mask, ours, reference, student.iou[index]))
    return pictures
