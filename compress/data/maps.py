"""A folder of what a teacher said elsewhere: for each image a map of its stem.

DIR/*.png        of two classes the probability of the second, 8 or 16 bits, or a mask of 0 and 1, or 0 and 255;
                 of several the class id of each pixel, 255 being not known
DIR/CLASS/*.png  of any: the probability of that class; that of the first is what the others leave, where it has none
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress.data.coding import CLASS_IDS, VOID, Coding
from compress.data.folders import Dataset, Sample, folded
from compress.data.images import (
    RGB,
    LabelMasks,
    Mask,
    Reading,
    Size,
    read_all,
    read_mask,
    read_values,
    upright_size,
)
from compress.data.listing import folders_in, masks_in, what_is_in
from compress.errors import DataError, ModelError
from compress.files import content_hash, identity

_NAMED = 3
_BYTE = 255


@dataclass(frozen=True, eq=False)
class MapFolder:
    """`by_class`: the files of each class by stem, None for the first, which the others leave; one alone: a single
    file tells all classes. `identity`: of all files."""

    path: Path
    classes: tuple[str, ...]
    multilabel: bool
    by_class: tuple[Mapping[str, Path] | None, ...]
    identity: str
    size_bytes: int

    @property
    def of_shares(self) -> bool:
        """Whether its files hold probabilities, not class ids."""
        return len(self.by_class) > 1 or len(self.classes) == 2

    @property
    def names(self) -> tuple[str, ...]:
        return self.classes

    def of(self, image: Path) -> Mask | None:
        """What the folder says of an image."""
        stem = folded(image.stem)
        if len(self.by_class) == 1:
            return (self.by_class[0] or {}).get(stem)
        files = tuple(each.get(stem) if each is not None else None for each in self.by_class)
        return LabelMasks(files) if any(files) else None


@dataclass(frozen=True, eq=False)
class Maps:
    """The maps of some images, in their order. `labels`: those of them that are the image's label, since there is no
    map. `ones`: whether 1 is the largest value, so that these are masks, not probabilities. `warnings`: a line each."""

    folder: MapFolder
    files: tuple[Mask, ...]
    labels: frozenset[Mask] = frozenset()
    ones: bool = False
    coding: Coding = CLASS_IDS
    warnings: tuple[str, ...] = ()

    @property
    def how(self) -> dict[str, object]:
        """All that decides the probabilities but the files."""
        named = [mask in self.labels for mask in self.files]
        coded = [list(self.coding.meanings), self.coding.colours] if self.labels else []
        layout = [each is None for each in self.folder.by_class]
        return {"labels": named, "coding": coded, "ones": self.ones, "classes": self.folder.classes, "layout": layout}

    def probabilities(self, mask: Mask) -> np.ndarray:
        """float32 [classes, H, W], of one of `files`. Raises DataError."""
        if mask in self.labels:
            return _of_ids(read_mask(mask, self.coding), len(self.folder.classes), self.folder.multilabel)
        if isinstance(mask, LabelMasks):
            return self._of_each(mask)
        if self.folder.of_shares:
            second = self._share(mask)
            return np.stack([1 - second, second])
        return _of_ids(_class_ids(mask, self.folder.classes), len(self.folder.classes), False)

    def _share(self, path: Path) -> np.ndarray:
        values, white = read_values(path)
        return values.astype(np.float32).clip(0, white) / (1 if self.ones else white)

    def _of_each(self, masks: LabelMasks) -> np.ndarray:
        shares = [self._share(path) if path else None for path in masks.files]
        shape = next(each for each in shares if each is not None).shape
        if wrong := [path for path, each in zip(masks.files, shares) if each is not None and each.shape != shape]:
            raise DataError(f"{wrong[0]}: is not as large as {masks}; save the maps of all classes at one size")
        whole = np.stack([np.zeros(shape, np.float32) if each is None else each for each in shares])
        if self.folder.multilabel:
            return whole
        if self.folder.by_class[0] is None:
            whole[0] = (1 - whole[1:].sum(0)).clip(0, 1)
        total = whole.sum(0)
        return np.where(total > 0, whole / np.maximum(total, 1e-6), 1 / len(whole)).astype(np.float32)


def open_maps(path: Path, classes: Sequence[str], multilabel: bool, called: Mapping[str, str]) -> MapFolder:
    """The folder of a teacher of these classes. `called`: what the folder of a class is called, where that is not its
    name. Raises DataError where it holds no maps, and ModelError where its folders are other classes."""
    own, folders = masks_in(path).pictures, folders_in(path)
    if own and multilabel:
        raise ModelError(f"{path}: maps of several labels lie in a folder for each, {path.name}/{classes[0]}/1.png")
    by_class: tuple[Mapping[str, Path] | None, ...]
    by_class = (_by_stem(own),) if own else _by_class(path, folders, classes, multilabel, called)
    files = sorted({file for each in by_class if each for file in each.values()})
    if not files:
        raise DataError(f"{path}: no maps, which are pictures named as the images; it holds {what_is_in(path)}")
    hashes = list(read_all(content_hash, files, "hashing maps"))
    names = [str(file.relative_to(path)) for file in files]
    key = identity("folder of maps", 1, files=dict(zip(names, hashes)), classes=list(classes), called=dict(called))
    return MapFolder(path, tuple(classes), multilabel, by_class, key, sum(file.stat().st_size for file in files))


def _by_class(
    path: Path, folders: Sequence[str], classes: Sequence[str], multilabel: bool, called: Mapping[str, str]
) -> tuple[Mapping[str, Path] | None, ...]:
    names = {called.get(folder, folder): folder for folder in folders}
    unknown = [folder for name, folder in names.items() if name not in classes]
    missing = [name for name in classes[0 if multilabel else 1 :] if name not in names]
    if folders and (unknown or missing):
        said = [f"{unknown[0]}/ is none of its classes" if unknown else "", f"{', '.join(missing)} missing"]
        raise ModelError(
            f"{path}: {'; '.join(filter(None, said if missing else said[:1]))}; the model tells {', '.join(classes)}: "
            "name the folders so, or say under [teacher] classes what each is"
        )
    return tuple(_by_stem(masks_in(path / names[name]).pictures) if name in names else None for name in classes)


def _by_stem(paths: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if (other := found.setdefault(folded(path.stem), path)) is not path:
            raise DataError(f"{path}: and {other.name} are maps of one image; remove one")
    return found


def maps_of(folder: MapFolder, dataset: Dataset) -> Maps:
    """Of the images to learn from, `train` and then `unlabelled`. Of one without a map its label is taken, where there
    is one.

    Raises DataError where maps are missing, are none of these images', have another shape than their image, hold what
    cannot be read, or are all of one value.
    """
    samples = [*dataset.train, *dataset.unlabelled]
    _check_named(folder, dataset, samples)
    found = {sample: folder.of(sample.image) for sample in samples}
    files = tuple(mask for sample, one in found.items() if (mask := one or sample.mask))
    labels = frozenset(sample.mask for sample, one in found.items() if one is None and sample.mask)
    ones = _holds_ones(folder, [(one, sample.image) for sample, one in found.items() if one], dataset.reading)
    alone = f"{folder.path}: no map for {len(labels)} of the images that have a label, which teaches alone there"
    twice = [stem for stem in _shared(dataset) if any(stem in each for each in folder.by_class if each)]
    both = f"{folder.path}: {len(twice)} images of val are named as others to learn from; maps are taken to be of these"
    said = ((alone,) if labels else ()) + ((both,) if twice else ())
    return Maps(folder, files, labels, ones, dataset.coding, said)


def _shared(dataset: Dataset) -> set[str]:
    """Stems that images to measure on have, and images to learn from too."""
    learned, val = (
        {folded(sample.image.stem) for sample in samples}
        for samples in ((*dataset.train, *dataset.unlabelled), dataset.val)
    )
    return learned & val


def _check_named(folder: MapFolder, dataset: Dataset, samples: Sequence[Sample]) -> None:
    """Raises DataError where images to learn from have neither map nor label, or two of them one map."""
    found = [folder.of(sample.image) for sample in samples]
    if not any(found):
        raise DataError(_of_no_image(folder, dataset))
    owners: dict[str, Path] = {}
    for sample, one in zip(samples, found):
        other = owners.setdefault(folded(sample.image.stem), sample.image)
        if one and other is not sample.image:
            raise DataError(f"{folder.path}: {other} and {sample.image} have one map; rename one, and its map")
    missing = [sample.image for sample, one in zip(samples, found) if one is None and sample.mask is None]
    if missing:
        named = ", ".join(path.name for path in missing[:_NAMED]) + (" ..." if len(missing) > _NAMED else "")
        raise DataError(
            f"{folder.path}: no map for {len(missing)} of the {len(samples)} images to learn from ({named}), which "
            "have no label either; add their maps or take the images away"
        )


def maps_to_measure(folder: MapFolder, maps: Maps, dataset: Dataset) -> Maps | None:
    """The same of the images to measure on; None where it has not all of them, or they can be of others."""
    found = [folder.of(sample.image) for sample in dataset.val]
    if not all(found) or _shared(dataset):
        return None
    return Maps(folder, tuple(mask for mask in found if mask), ones=maps.ones)


def _of_no_image(folder: MapFolder, dataset: Dataset) -> str:
    shown = sum(folder.of(sample.image) is not None for sample in dataset.val)
    first = next(iter([*dataset.unlabelled, *dataset.train])).image
    if shown:
        return (
            f"{folder.path}: has maps of {shown} of the {len(dataset.val)} images of val and of none to learn from; a "
            "student is measured on val and does not learn from it: make maps of train and of unlabelled images"
        )
    return f"{folder.path}: no map of any image to learn from; that of {first.name} is {first.stem}.png, and so on"


def _holds_ones(folder: MapFolder, own: Sequence[tuple[Mask, Path]], reading: Reading) -> bool:
    """Whether the maps are masks of 0 and 1. Raises DataError for what they cannot be."""
    found = [(each, image) for mask, image in own for each in _files_of(mask)]
    read = list(read_all(lambda pair: _extent(*pair, reading), found, "checking maps"))
    lowest, highest, white = min(each[0] for each in read), max(each[1] for each in read), max(each[2] for each in read)
    if lowest == highest:
        raise DataError(
            f"{folder.path}: every pixel of its {len(read)} maps is {lowest}, so they tell nothing; write them anew"
        )
    if folder.of_shares and white > _BYTE >= highest > 1:
        raise DataError(
            f"{folder.path}: 16 bits, and no value above {highest}; what is certain is 65535, or 255 of 8 bits"
        )
    return highest == 1


def _files_of(mask: Mask) -> tuple[Path, ...]:
    return mask.named if isinstance(mask, LabelMasks) else (mask,)


def _extent(path: Path, image: Path, reading: Reading = RGB) -> tuple[int, int, int]:
    """Lowest, highest and largest possible value of a map. Raises DataError where it is not shaped as its image."""
    values, white = read_values(path)
    size = upright_size(image, reading)
    if not _is_shaped_as(values.shape, size):
        had, wanted = ("x".join(map(str, each)) for each in (values.shape, size))
        raise DataError(
            f"{path}: is {had}, and {image.name} {wanted} pixels; a map covers the whole image, in its shape"
        )
    return int(values.min()), int(values.max()), white


def _is_shaped_as(shape: tuple[int, ...], size: Size) -> bool:
    """Whether both have the same proportions, to a pixel."""
    return abs(shape[0] * size[1] - shape[1] * size[0]) < max(*shape, *size)


def _class_ids(path: Path, classes: Sequence[str]) -> np.ndarray:
    ids = read_mask(path)
    wrong = ids[(ids >= len(classes)) & (ids != VOID)]
    if wrong.size:
        raise DataError(
            f"{path}: holds {wrong[0]}, and there are {len(classes)} classes, 0 to {len(classes) - 1}; probabilities "
            f"of several classes lie in a folder for each, such as {classes[-1]}/{path.name}"
        )
    return ids


def _of_ids(ids: np.ndarray, classes: int, multilabel: bool) -> np.ndarray:
    """Class ids, uint8 [H, W], 255 being not known, or sets of labels -> float32 [classes, H, W]."""
    if multilabel:
        return (ids >> np.arange(classes)[:, None, None] & 1).astype(np.float32)
    found = (ids == np.arange(classes)[:, None, None]).astype(np.float32)
    return np.where(ids == VOID, np.float32(1 / classes), found)
