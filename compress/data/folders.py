"""A folder of images and masks -> Dataset. Every file is decoded once here, so that no later stage meets a broken one.

train/images/*.jpg   train/masks/*.png    the same stem; 8-bit class ids, 255 is void
val/images/*.jpg     val/masks/*.png
unlabelled/**/*.jpg                       optional: images alone
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from compress.data.images import VOID, UnreadableError, checked_size, read_all, read_mask
from compress.errors import DataError

_SUFFIXES = (".jpg", ".jpeg", ".png")
_UNREADABLE_LIMIT = 0.01


@dataclass(frozen=True)
class Sample:
    image: Path
    mask: Path | None = None


@dataclass(frozen=True)
class Dataset:
    """What there is to learn from and to measure on. Samples of `train` and `val` have masks, those
    of `unlabelled` have none; with reference "teacher" those of `val` have none either, and IoU is
    agreement with the teacher.

    `object_is_255`: a two-class set that writes the object as 255, as `read_mask` needs to know.
    """

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    unlabelled: tuple[Sample, ...]
    classes: tuple[str, ...]
    reference: Literal["labels", "teacher"]
    object_is_255: bool = False
    warnings: tuple[str, ...] = ()


def open_dataset(folder: Path, classes: Sequence[str], unlabelled: Path | None = None) -> Dataset:
    """The dataset in `folder`, with the images under `unlabelled` added to its own.

    Train images without a mask count as unlabelled. Raises DataError, naming the file, for a missing
    folder, an empty `val`, a mask without an image, of another size or with an id that is no class,
    and for unreadable files unless they are under 1 % of the set, which become warnings.
    """
    train, val = _pairs(_existing(folder) / "train"), _pairs(folder / "val")
    for sample in val:
        if not sample.mask:
            raise DataError(f"{sample.image}: no mask {sample.image.stem}.png in {folder / 'val' / 'masks'}; add it")
    known = {sample.image.resolve() for sample in train + val}
    alone = _images_under(folder / "unlabelled") + (_images_under(_existing(unlabelled)) if unlabelled else [])
    new = {image.resolve(): Sample(image) for image in alone if image.resolve() not in known}

    samples, ids, warnings = _readable([*train, *val, *new.values()], len(classes))
    maskless = sum(1 for sample in train if not sample.mask)
    if 0 < maskless < len(train):
        warnings.append(f"{folder / 'train'}: {maskless} of {len(train)} images have no mask; they count as unlabelled")
    readable = set(samples)
    dataset = Dataset(
        train=tuple(sample for sample in train if sample.mask and sample in readable),
        val=tuple(sample for sample in val if sample in readable),
        unlabelled=tuple(sample for sample in samples if not sample.mask),
        classes=tuple(classes),
        reference="labels",
        object_is_255=len(classes) == 2 and 255 in ids and 1 not in ids,
        warnings=tuple(warnings),
    )
    if not dataset.val:
        raise DataError(f"{folder / 'val'}: no images to measure on; put them in val/images and val/masks")
    return _with_something_to_learn_from(dataset, folder)


def open_unlabelled(folder: Path, classes: Sequence[str], seed: int) -> Dataset:
    """Images alone, at any depth of `folder`: 15 % of them (1 to 100, drawn by `seed`) become `val`.

    Raises DataError for a missing folder, fewer than two images, or 1 % and more of them unreadable.
    """
    samples, _, warnings = _readable([Sample(image) for image in _images_under(_existing(folder))], len(classes))
    count = min(max(round(0.15 * len(samples)), 1), 100, len(samples))
    val = set(random.Random(seed).sample(samples, count))
    dataset = Dataset(
        train=(),
        val=tuple(sample for sample in samples if sample in val),
        unlabelled=tuple(sample for sample in samples if sample not in val),
        classes=tuple(classes),
        reference="teacher",
        warnings=tuple(warnings),
    )
    return _with_something_to_learn_from(dataset, folder)


def photographs(folder: Path) -> list[Path]:
    """Images at any depth of `folder`, by name. Raises DataError for a missing folder and for one without images."""
    found = _images_under(_existing(folder))
    if not found:
        raise DataError(f"{folder}: no images; put .jpg or .png files in it")
    return found


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give one that holds train/ and val/, or images alone")
    return folder


def _with_something_to_learn_from(dataset: Dataset, folder: Path) -> Dataset:
    if not dataset.train + dataset.unlabelled:
        raise DataError(f"{folder}: too few images to learn from; add .jpg or .png files, a few hundred at best")
    return dataset


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()


def _images_under(folder: Path) -> list[Path]:
    """At any depth, but for folders of masks, which are pictures too."""
    return sorted(
        path for path in folder.rglob("*") if _is_image(path) and "masks" not in path.relative_to(folder).parts
    )


def _pairs(part: Path) -> list[Sample]:
    """Images with the mask of the same stem, where there is one."""
    by_stem: dict[str, Path] = {}
    for image in sorted(path for path in (part / "images").glob("*") if _is_image(path)):
        other = by_stem.setdefault(image.stem, image)
        if other is not image:
            raise DataError(f"{image}: has the same stem as {other.name}, so one mask for two images; rename one")
    masks = {path.stem: path for path in sorted((part / "masks").glob("*.png")) if _is_image(path)}
    for stem, mask in masks.items():
        if stem not in by_stem:
            raise DataError(f"{mask}: no image of that name in {part / 'images'}; add it or remove the mask")
    return [Sample(image, masks.get(stem)) for stem, image in by_stem.items()]


def _readable(samples: Sequence[Sample], class_count: int) -> tuple[list[Sample], set[int], list[str]]:
    """The samples that decode, the ids that occur in their masks, and a warning for each of the others."""

    def check(sample: Sample) -> frozenset[int] | UnreadableError:
        try:
            size = checked_size(sample.image)
            return _ids_in(sample.mask, size, class_count) if sample.mask else frozenset()
        except UnreadableError as error:
            return error

    kept, ids, unreadable = [], set[int](), []
    for sample, found in zip(samples, read_all(check, samples, "checking images"), strict=True):
        if isinstance(found, UnreadableError):
            unreadable.append(str(found))
        else:
            kept.append(sample)
            ids |= found
    if unreadable and len(unreadable) >= _UNREADABLE_LIMIT * len(samples):
        raise DataError(
            f"{'; '.join(unreadable[:3])}: {len(unreadable)} of {len(samples)} images are unreadable; "
            "mend or remove them"
        )
    return kept, ids, [f"skipped {reason}" for reason in unreadable]


def _ids_in(mask: Path, image_size: tuple[int, int], class_count: int) -> frozenset[int]:
    ids = read_mask(mask)
    if ids.shape != image_size:
        raise DataError(
            f"{mask}: {ids.shape[1]}x{ids.shape[0]} pixels, its image {image_size[1]}x{image_size[0]}; "
            "save both at one size"
        )
    found = frozenset(np.flatnonzero(np.bincount(ids.ravel())).tolist())
    wrong = sorted(id for id in found if class_count <= id != VOID)
    if wrong:
        raise DataError(f"{mask}: class id {wrong[0]}, but there are {class_count} classes (0 to {class_count - 1})")
    return found
