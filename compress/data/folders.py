"""A folder of images and masks -> Dataset. Every file is decoded once here, so that no later stage meets a broken one.

train/images/*.jpg   train/masks/*.png    the same stem; class ids as `read_mask` reads them, 255 is void
val/images/*.jpg     val/masks/*.png      any format of `SUFFIXES`, images of `IMAGE_SUFFIXES`; labels/ is
                                          another name for masks/
train/masks/LABEL/*.png                   of several labels at once, in place of masks/*.png: where each of them is
unlabelled/**/*.jpg                       optional: images alone

To measure on, a folder that has images/ and masks/ itself will do. Files that are not used are told in `warnings`.
"""

import os
import random
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from compress.data.coding import CLASS_IDS, Coding
from compress.data.duplicates import duplicates
from compress.data.images import RGB, LabelMasks, Mask, Reading, UnreadableError, checked, read_all
from compress.data.labels import Values, check_ids, check_labels, check_measurable, found_coding, oddities, values_of
from compress.data.listing import MASKS, Listing, folders_in, images_in, masks_in, pictures_under, what_is_in
from compress.errors import DataError

_UNREADABLE_LIMIT = 0.01
_NAMED = 3
_OPENED = ("train", "val", "unlabelled")


@dataclass(frozen=True)
class Sample:
    image: Path
    mask: Mask | None = None


@dataclass(frozen=True)
class Dataset:
    """What there is to learn from and to measure on. Samples of `train` and `val` have masks, those
    of `unlabelled` have none; with reference "teacher" those of `val` have none either, and IoU is
    agreement with the teacher. `coding`: what values in masks mean, as `read_mask` needs to know. `reading`: how the
    images are read. `multilabel`: a pixel can have several of the classes.
    """

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    unlabelled: tuple[Sample, ...]
    classes: tuple[str, ...]
    reference: Literal["labels", "teacher"]
    coding: Coding = CLASS_IDS
    warnings: tuple[str, ...] = ()
    reading: Reading = RGB
    multilabel: bool = False


@dataclass(frozen=True)
class _Part:
    """What a folder with images/ and masks/ holds. `multilabel`: a folder of masks for each label; None: no masks."""

    folder: Path
    masks: Path
    samples: tuple[Sample, ...]
    left_out: tuple[str, ...]
    multilabel: bool | None


@dataclass(frozen=True)
class _Read:
    """What decoding gave: the thumbnail of each sample's image, the values of its mask, and a warning for each that
    does not decode."""

    thumbnails: dict[Sample, np.ndarray]
    values: dict[Mask, Values]
    warnings: tuple[str, ...]

    def masks_of(self, part: _Part) -> dict[Mask, Values]:
        return {sample.mask: self.values[sample.mask] for sample in part.samples if sample.mask in self.values}


def open_dataset(
    folder: Path,
    classes: Sequence[str],
    unlabelled: Path | None = None,
    coding: Coding | None = None,
    reading: Reading = RGB,
    multilabel: bool | None = None,
) -> Dataset:
    """The dataset in `folder`, with the images under `unlabelled` added to its own. `coding` None: found out.
    `multilabel`: whether its masks are to tell several labels at once; None: as they are laid out.

    Train images without a mask count as unlabelled. A picture that is in `val` too is left out of what is
    learnt from, with a warning: `val` must tell of images that were not seen. Raises DataError, naming the file,
    for a missing folder, an empty `val`, a mask without an image, of another size or with an id that is no class,
    a `val` without any class, and for unreadable files unless they are under 1 % of the set, which become warnings.
    """
    train = _part(_existing(folder) / "train", classes, multilabel)
    val = _with_all_masks(_part(folder / "val", classes, multilabel if train.multilabel is None else train.multilabel))
    known = {sample.image.resolve() for sample in train.samples + val.samples}
    beside = [folder / "unlabelled"] if os.path.isdir(folder / "unlabelled") else []
    alone = [pictures_under(place) for place in (*beside, *([_existing(unlabelled)] if unlabelled else []))]
    images = [image for found in alone for image in found.pictures]
    new = {image.resolve(): Sample(image) for image in images if image.resolve() not in known}

    read = _read([*train.samples, *val.samples, *new.values()], reading, coding)
    coding, odd = _coding(coding, classes, read, [train, val], measured=val)
    maskless = sum(1 for sample in train.samples if not sample.mask)
    if 0 < maskless < len(train.samples):
        odd.append(f"{train.folder}: {maskless} of {len(train.samples)} images have no mask; they count as unlabelled")
    fresh, copies = _without_copies(read.thumbnails, val.samples)
    left_out = [*train.left_out, *val.left_out, *(line for found in alone for line in found.left_out)]
    dataset = Dataset(
        train=tuple(sample for sample in fresh if sample.mask),
        val=tuple(sample for sample in val.samples if sample in read.thumbnails),
        unlabelled=tuple(sample for sample in fresh if not sample.mask),
        classes=tuple(classes),
        reference="labels",
        coding=coding,
        warnings=(*left_out, *read.warnings, *odd, *copies),
        reading=reading,
        multilabel=bool(val.multilabel),
    )
    return _with_something_to_learn_from(_with_something_to_measure_on(dataset, val), folder, copies)


def mask_layout(folder: Path) -> tuple[bool | None, list[str]]:
    """Whether the masks to measure on in a set tell several labels at once, and the folders of the labels; None where
    there are no masks. Raises DataError for a missing folder."""
    place = _labelled_in(folder)
    masks = _masks_of(place, folders_in(place))
    labels = folders_in(masks)
    return (False if masks_in(masks).pictures else True if labels else None), labels


def _masks_of(folder: Path, others: Sequence[str]) -> Path:
    """The first of `MASKS` that is among the folders in `folder`."""
    return folder / next((name for name in MASKS if name in others), MASKS[0])


def _labelled_in(folder: Path) -> Path:
    return folder if os.path.isdir(_existing(folder) / "images") else folder / "val"


def open_labelled(
    folder: Path,
    classes: Sequence[str],
    coding: Coding | None = None,
    reading: Reading = RGB,
    multilabel: bool | None = None,
) -> Dataset:
    """What there is to measure on alone, as `val`: that of `folder`, or `folder` itself where it has images/. `coding`
    None: found out. `multilabel` as `open_dataset` has it.

    Raises DataError as `open_dataset` does.
    """
    part = _with_all_masks(_part(_labelled_in(folder), classes, multilabel))
    read = _read(part.samples, reading, coding)
    coding, odd = _coding(coding, classes, read, [part], measured=part)
    return _with_something_to_measure_on(
        Dataset(
            train=(),
            val=tuple(read.thumbnails),
            unlabelled=(),
            classes=tuple(classes),
            reference="labels",
            coding=coding,
            warnings=(*part.left_out, *read.warnings, *odd),
            reading=reading,
            multilabel=bool(part.multilabel),
        ),
        part,
    )


def open_unlabelled(
    folder: Path, classes: Sequence[str], seed: int, reading: Reading = RGB, multilabel: bool = False
) -> Dataset:
    """Images alone, at any depth of `folder`: 15 % of them (1 to 100, drawn by `seed`) become `val`.

    Pictures that are in `val` too are left out, as `open_dataset` does. Raises DataError for a missing folder,
    fewer than two images, or 1 % and more of them unreadable.
    """
    found = pictures_under(_existing(folder))
    read = _read([Sample(image) for image in found.pictures], reading)
    samples = list(read.thumbnails)
    count = min(max(round(0.15 * len(samples)), 1), 100, len(samples))
    val = set(random.Random(seed).sample(samples, count))
    fresh, copies = _without_copies(read.thumbnails, [sample for sample in samples if sample in val])
    dataset = Dataset(
        train=(),
        val=tuple(sample for sample in samples if sample in val),
        unlabelled=tuple(fresh),
        classes=tuple(classes),
        reference="teacher",
        warnings=(*found.left_out, *read.warnings, *copies),
        reading=reading,
        multilabel=multilabel,
    )
    return _with_something_to_learn_from(dataset, folder, (*found.left_out, *copies))


def open_images(folder: Path, reading: Reading = RGB) -> tuple[dict[Path, np.ndarray], list[str]]:
    """Images at any depth of `folder`, each with its thumbnail (uint8 [32, 32, 3]), and warnings about others.

    Raises DataError for a missing folder, no images, or 1 % and more of them unreadable.
    """
    paths, left_out = photographs(folder)
    read = _read([Sample(image) for image in paths], reading)
    thumbnails = {sample.image: thumbnail for sample, thumbnail in read.thumbnails.items()}
    return thumbnails, [*left_out, *read.warnings]


def photographs(folder: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Images at any depth of `folder`, by name, and a warning about other files. Raises DataError for a missing folder
    and for one without images."""
    found = pictures_under(_existing(folder))
    if not found.pictures:
        raise DataError("; ".join([f"{folder}: no images; put .jpg or .png files in it", *found.left_out]))
    return found.pictures, found.left_out


def _existing(folder: Path) -> Path:
    if not os.path.isdir(folder):
        what = "not a folder" if os.path.exists(folder) else "no such folder"
        raise DataError(f"{folder}: {what}; give one that holds train/ and val/, or images alone")
    return folder


def _with_all_masks(part: _Part) -> _Part:
    """Raises DataError for an image without a mask, with what was left out, since its mask may be among that."""
    for sample in part.samples:
        if not sample.mask:
            place = f"any folder of {part.masks}" if part.multilabel else part.masks
            lines = [f"{sample.image}: no mask {sample.image.stem}.png in {place}; add it", *part.left_out]
            raise DataError("; ".join(lines))
    return part


def _coding(
    named: Coding | None, classes: Sequence[str], read: _Read, parts: Sequence[_Part], measured: _Part
) -> tuple[Coding, list[str]]:
    """What values mean, and what looks mis-coded in each part. Raises DataError for ids that are no classes, and where
    the part to measure on has none."""
    if any(part.multilabel for part in parts):
        return CLASS_IDS, [line for part in parts for line in check_labels(part.masks, classes, read.masks_of(part))]
    check_ids(classes, read.values)
    coding = named or found_coding(classes, read.values)
    if found := read.masks_of(measured):
        check_measurable(measured.masks, classes, found, coding)
    lines = (oddities(part.masks, classes, read.masks_of(part), coding) for part in parts)
    return coding, [line for part in lines for line in part]


def _with_something_to_measure_on(dataset: Dataset, part: _Part) -> Dataset:
    if not dataset.val:
        around = part.folder if os.path.isdir(part.folder) else part.folder.parent
        raise DataError(
            f"{part.folder}: no images to measure on; put them in {part.folder / 'images'} and {part.masks}; "
            f"{around} holds {what_is_in(around)}"
        )
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


def _part(folder: Path, classes: Sequence[str], multilabel: bool | None) -> _Part:
    """Images with the mask of the same name, where there is one. Raises DataError where masks are not laid out as
    `multilabel` says."""
    others = folders_in(folder)
    place = _masks_of(folder, others)
    images, masks = images_in(folder / "images"), masks_in(place)
    labels = folders_in(place) if multilabel is not False and not masks.pictures else []
    if multilabel and masks.pictures:
        raise DataError(
            f"{masks.pictures[0]}: is of one class a pixel, but the model tells several labels at once: the masks of a "
            "label lie in masks/LABEL/; move them there, or set multilabel = false under [model]"
        )
    by_stem = _by_stem(images.pictures, "one mask for two images")
    mask_of: Mapping[str, Mask] = (
        _label_masks(place, labels, classes, by_stem) if labels else _matched(by_stem, masks, place)
    )
    samples = tuple(Sample(image, mask_of.get(stem)) for stem, image in by_stem.items())
    named = ", ".join(f"{name}/" for name in others if name not in ("images", place.name, *_OPENED))
    unread = (f"{folder}: left out: {named}; images lie in images/ and masks in masks/ or labels/",) if named else ()
    left_out = unread + images.left_out + (() if labels else masks.left_out)
    return _Part(folder, place, samples, left_out, bool(labels) if mask_of else None)


def _label_masks(
    folder: Path, labels: Sequence[str], classes: Sequence[str], images: Mapping[str, Path]
) -> dict[str, Mask]:
    """By the stem of an image, the masks of its labels. Raises DataError where the folders are not the classes."""
    if set(labels) != set(classes):
        raise DataError(
            f"{folder}: holds folders for the labels {', '.join(labels)}, but the model's are {', '.join(classes)}; "
            "name classes as the folders, in the order of the model's channels"
        )
    found = [_matched(images, masks_in(folder / name), folder) for name in classes]
    stems = [stem for stem in images if any(stem in one for one in found)]
    return {stem: LabelMasks(tuple(one.get(stem) for one in found)) for stem in stems}


def _by_stem(paths: Sequence[Path], clash: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        other = found.setdefault(path.stem, path)
        if other is not path:
            raise DataError(f"{path}: has the same stem as {other.name}, so {clash}; rename or remove one")
    return found


def _matched(images: Mapping[str, Path], masks: Listing, folder: Path) -> dict[str, Path]:
    """The mask of each image, by the image's stem: of the same one, or else of one that is the same to other systems,
    which tell neither upper from lower case nor one Unicode form from another. `folder`: of masks, beside images/."""
    by_stem = _by_stem(masks.pictures, "two masks for one image")
    free = defaultdict[str, list[str]](list)
    for stem in images:
        if stem not in by_stem:
            free[folded(stem)].append(stem)
    found = {}
    for stem, mask in by_stem.items():
        alike = [stem] if stem in images else free.pop(folded(stem), [])
        if len(alike) != 1:
            beside = folder.with_name("images")
            raise DataError(f"{mask}: no image of that name in {beside}; add it or remove the mask")
        found[alike[0]] = mask
    return found


def folded(stem: str) -> str:
    """The same for names that are one to other systems."""
    return unicodedata.normalize("NFC", stem).casefold()


def _read(samples: Sequence[Sample], reading: Reading, coding: Coding | None = None) -> _Read:
    """Decodes every file. Raises DataError where 1 % of the samples and more do not decode."""

    def check(sample: Sample) -> tuple[np.ndarray, Values | None] | UnreadableError:
        try:
            size, thumbnail = checked(sample.image, reading)
            return thumbnail, values_of(sample.mask, size, coding or CLASS_IDS) if sample.mask else None
        except UnreadableError as error:
            return error

    thumbnails, values, unreadable = dict[Sample, np.ndarray](), dict[Mask, Values](), []
    for sample, found in zip(samples, read_all(check, samples, "checking images"), strict=True):
        if isinstance(found, UnreadableError):
            unreadable.append(str(found))
        else:
            thumbnails[sample] = found[0]
            values |= {sample.mask: found[1]} if sample.mask and found[1] else {}
    if unreadable and len(unreadable) >= _UNREADABLE_LIMIT * len(samples):
        raise DataError(
            f"{'; '.join(unreadable[:3])}: {len(unreadable)} of {len(samples)} images are unreadable; "
            "mend or remove them"
        )
    return _Read(thumbnails, values, tuple(f"skipped {reason}" for reason in unreadable))
