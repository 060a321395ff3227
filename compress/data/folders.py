"""A folder of images and masks -> Dataset. Every file is decoded once here, so that no later stage meets a broken one.

train/images/*.jpg   train/masks/*.png    the same stem; 8-bit class ids, 255 is void
val/images/*.jpg     val/masks/*.png
unlabelled/**/*.jpg                       optional: images alone

To measure on, a folder that has images/ and masks/ itself will do.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from compress.data.duplicates import duplicates
from compress.data.images import VOID, UnreadableError, checked, read_all, read_mask
from compress.errors import DataError

_SUFFIXES = (".jpg", ".jpeg", ".png")
_UNREADABLE_LIMIT = 0.01
_NAMED = 3


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

    Train images without a mask count as unlabelled. A picture that is in `val` too is left out of what is
    learnt from, with a warning: `val` must tell of images that were not seen. Raises DataError, naming the file,
    for a missing folder, an empty `val`, a mask without an image, of another size or with an id that is no class,
    and for unreadable files unless they are under 1 % of the set, which become warnings.
    """
    train, val = _pairs(_existing(folder) / "train"), _all_with_masks(_pairs(folder / "val"), folder)
    known = {sample.image.resolve() for sample in train + val}
    alone = _images_under(folder / "unlabelled") + (_images_under(_existing(unlabelled)) if unlabelled else [])
    new = {image.resolve(): Sample(image) for image in alone if image.resolve() not in known}

    thumbnails, ids, warnings = _readable([*train, *val, *new.values()], len(classes))
    maskless = sum(1 for sample in train if not sample.mask)
    if 0 < maskless < len(train):
        warnings.append(f"{folder / 'train'}: {maskless} of {len(train)} images have no mask; they count as unlabelled")
    fresh, copies = _without_copies(thumbnails, val)
    dataset = Dataset(
        train=tuple(sample for sample in fresh if sample.mask),
        val=tuple(sample for sample in val if sample in thumbnails),
        unlabelled=tuple(sample for sample in fresh if not sample.mask),
        classes=tuple(classes),
        reference="labels",
        object_is_255=_is_255(classes, ids),
        warnings=(*warnings, *copies),
    )
    return _with_something_to_learn_from(_with_something_to_measure_on(dataset, folder), folder, copies)


def open_val(folder: Path, classes: Sequence[str]) -> Dataset:
    """The images and masks in `folder`/val alone, to measure on. Raises DataError as `open_dataset` does."""
    pairs = _pairs(_existing(folder) / "val")
    samples, ids, warnings = _readable(_all_with_masks(pairs, folder), len(classes))
    dataset = Dataset((), tuple(samples), (), tuple(classes), "labels", _is_255(classes, ids), tuple(warnings))
    return _with_something_to_measure_on(dataset, folder)


def open_labelled(folder: Path, classes: Sequence[str]) -> Dataset:
    """What there is to measure on alone, as `val`: that of `folder`, or `folder` itself where it has images/.

    Raises DataError as `open_dataset` does, and where the masks hold none of the classes but background.
    """
    part = folder if (_existing(folder) / "images").is_dir() else folder / "val"
    pairs = _pairs(part)
    for sample in pairs:
        if not sample.mask:
            raise DataError(f"{sample.image}: no mask {sample.image.stem}.png in {part / 'masks'}; add it")
    samples, ids, warnings = _readable(pairs, len(classes))
    if not samples:
        raise DataError(f"{part}: no images to measure on; put them in {part / 'images'} and {part / 'masks'}")
    object_is_255 = len(classes) == 2 and VOID in ids and 1 not in ids
    if not ids - {0, VOID} and not object_is_255:
        raise DataError(
            f"{part / 'masks'}: no pixel of a class but background; the file's classes are {', '.join(classes)}: "
            "give the data set that it was made for"
        )
    return Dataset((), tuple(samples), (), tuple(classes), "labels", object_is_255, tuple(warnings))


def open_unlabelled(folder: Path, classes: Sequence[str], seed: int) -> Dataset:
    """Images alone, at any depth of `folder`: 15 % of them (1 to 100, drawn by `seed`) become `val`.

    Pictures that are in `val` too are left out, as `open_dataset` does. Raises DataError for a missing folder,
    fewer than two images, or 1 % and more of them unreadable.
    """
    thumbnails, _, warnings = _readable([Sample(image) for image in _images_under(_existing(folder))], len(classes))
    samples = list(thumbnails)
    count = min(max(round(0.15 * len(samples)), 1), 100, len(samples))
    val = set(random.Random(seed).sample(samples, count))
    fresh, copies = _without_copies(thumbnails, [sample for sample in samples if sample in val])
    dataset = Dataset(
        train=(),
        val=tuple(sample for sample in samples if sample in val),
        unlabelled=tuple(fresh),
        classes=tuple(classes),
        reference="teacher",
        warnings=(*warnings, *copies),
    )
    return _with_something_to_learn_from(dataset, folder, copies)


def open_images(folder: Path) -> tuple[dict[Path, np.ndarray], list[str]]:
    """Images at any depth of `folder`, each with its thumbnail (uint8 [32, 32, 3]), and warnings about others.

    Raises DataError for a missing folder, no images, or 1 % and more of them unreadable.
    """
    thumbnails, _, warnings = _readable([Sample(image) for image in _images_under(_existing(folder))], 0)
    if not thumbnails:
        raise DataError(f"{folder}: no images; add .jpg or .png files")
    return {sample.image: thumbnail for sample, thumbnail in thumbnails.items()}, warnings


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


def _all_with_masks(val: list[Sample], folder: Path) -> list[Sample]:
    for sample in val:
        if not sample.mask:
            raise DataError(f"{sample.image}: no mask {sample.image.stem}.png in {folder / 'val' / 'masks'}; add it")
    return val


def _is_255(classes: Sequence[str], ids: set[int]) -> bool:
    return len(classes) == 2 and 255 in ids and 1 not in ids


def _with_something_to_measure_on(dataset: Dataset, folder: Path) -> Dataset:
    if not dataset.val:
        raise DataError(f"{folder / 'val'}: no images to measure on; put them in val/images and val/masks")
    return dataset


def _with_something_to_learn_from(dataset: Dataset, folder: Path, copies: Sequence[str]) -> Dataset:
    if not dataset.train + dataset.unlabelled:
        why = "".join(f" ({line})" for line in copies)
        raise DataError(f"{folder}: too few images to learn from{why}; add .jpg or .png files, a few hundred at best")
    return dataset


def _without_copies(thumbnails: Mapping[Sample, np.ndarray], val: Sequence[Sample]) -> tuple[list[Sample], list[str]]:
    """The samples outside `val` whose picture is not in `val` either, and a warning about those that were."""
    val = [sample for sample in val if sample in thumbnails]
    measured = set(val)
    others = [sample for sample in thumbnails if sample not in measured]
    if not val or not others:
        return others, []
    pairs = duplicates(*(np.stack([thumbnails[sample] for sample in part]) for part in (others, val)))
    twins: dict[Sample, Sample] = {}
    for i, j in pairs:
        twins.setdefault(others[i], val[j])
    named = [f"{copy.image} is {twin.image.name}" for copy, twin in twins.items()][:_NAMED]
    more = f" and {len(twins) - _NAMED} more" if len(twins) > _NAMED else ""
    warning = (
        f"left out of training, because val shows the same picture: {len(twins)} of {len(others)} images "
        f"({', '.join(named)}{more}); remove them from one of the two sets"
    )
    return [sample for sample in others if sample not in twins], [warning] if twins else []


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


def _readable(samples: Sequence[Sample], class_count: int) -> tuple[dict[Sample, np.ndarray], set[int], list[str]]:
    """The samples that decode, each with its image's thumbnail; the ids that occur in their masks; and a warning
    for each of the others."""

    def check(sample: Sample) -> tuple[np.ndarray, frozenset[int]] | UnreadableError:
        try:
            size, thumbnail = checked(sample.image)
            return thumbnail, _ids_in(sample.mask, size, class_count) if sample.mask else frozenset()
        except UnreadableError as error:
            return error

    kept, ids, unreadable = dict[Sample, np.ndarray](), set[int](), []
    for sample, found in zip(samples, read_all(check, samples, "checking images"), strict=True):
        if isinstance(found, UnreadableError):
            unreadable.append(str(found))
        else:
            kept[sample] = found[0]
            ids |= found[1]
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
