"""What the values in a set's masks mean, and whether they can be right: one rule for every command."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress.data.coding import CLASS_IDS, OBJECT_255, VOID, Coding, labels_of
from compress.data.images import LOSSY_MASK, LabelMasks, Mask, Size, is_lossy, read_mask
from compress.errors import DataError

_NAMED = 3
_VALUES = 8
_MOST = 0.5
_NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Values:
    """What one mask holds; of several labels at once, `ids` are those that occur. `lossy`: ids 0 and 1, made from a
    picture whose format changes values. `object` and `edge`: the share of its pixels, and of its outermost ones, that
    are 1, or 255 where none is."""

    ids: frozenset[int]
    lossy: bool
    object: float
    edge: float


def values_of(mask: Mask, image_size: Size, coding: Coding = CLASS_IDS) -> Values:
    """Of a mask whose image has that height and width. Raises DataError for a mask of another size, of values that the
    coding does not name, or unreadable."""
    ids = read_mask(mask, coding)
    if ids.shape != image_size:
        raise DataError(
            f"{mask}: {ids.shape[1]}x{ids.shape[0]} pixels, its image {image_size[1]}x{image_size[0]}; "
            "save both at one size"
        )
    if isinstance(mask, LabelMasks):
        every = int(np.bitwise_or.reduce(ids, axis=None))
        return Values(frozenset(labels_of(every, len(mask.files))), False, 0.0, 0.0)
    found = frozenset(np.flatnonzero(np.bincount(ids.ravel())).tolist())
    marked = ids == (1 if 1 in found else VOID)
    edge = np.concatenate([marked[0], marked[-1], marked[:, 0], marked[:, -1]])
    return Values(found, is_lossy(mask), float(marked.mean()), float(edge.mean()))


def found_coding(classes: Sequence[str], masks: Mapping[Mask, Values]) -> Coding:
    """What values mean that no recipe names: class ids, or, of two classes, the object as 255 where no mask holds 1."""
    exact = _union(values for values in masks.values() if not values.lossy)
    return OBJECT_255 if len(classes) == 2 and VOID in exact and 1 not in exact else CLASS_IDS


def check_labels(folder: Path, classes: Sequence[str], masks: Mapping[Mask, Values]) -> list[str]:
    """Of masks of several labels at once: a line that names the labels that never occur. Raises DataError where none
    does."""
    shown = _union(masks.values())
    if masks and not shown:
        raise DataError(f"{folder}: no pixel of any label; write 1 or 255 where a label is")
    missing = [name for id, name in enumerate(classes) if id not in shown]
    return [f"{folder}: no pixel of {_named(missing)}"] if masks and missing else []


def check_ids(classes: Sequence[str], masks: Mapping[Mask, Values]) -> None:
    """Raises DataError, naming the mask: an id is no class, or the format keeps no ids of more than two classes."""
    count, ids = len(classes), _union(masks.values())
    for mask, values in masks.items():
        if values.lossy and count != 2:
            raise DataError(f"{mask}: {LOSSY_MASK}")
        wrong = sorted(id for id in values.ids if count <= id != VOID)
        if wrong:
            raise DataError(
                f"{mask}: class id {wrong[0]} in {_pixels(mask, wrong[0])}, but there are {count} classes (0 to "
                f"{count - 1}); the masks hold {_listed(ids)}: {_advice(ids - {VOID}, count)}"
            )


def check_measurable(folder: Path, classes: Sequence[str], masks: Mapping[Mask, Values], coding: Coding) -> None:
    """Raises DataError where the masks in `folder` hold no class, so that nothing can be measured on them."""
    if not _shown(masks, coding) - {0}:
        raise DataError(_nothing(folder, classes, masks))


def oddities(folder: Path, classes: Sequence[str], masks: Mapping[Mask, Values], coding: Coding) -> list[str]:
    """What looks mis-coded in the masks in `folder`, a line each."""
    if not masks:
        return []
    shown = _shown(masks, coding)
    if not shown - {0}:
        return [_nothing(folder, classes, masks)]
    found = [_absent(folder, classes, shown), _converted(folder, masks)]
    if len(classes) == 2:
        found += [_mixed(folder, masks, coding), _inverted(folder, classes, masks)]
    return [line for line in found if line]


def _shown(masks: Mapping[Mask, Values], coding: Coding) -> frozenset[int]:
    """The classes that occur."""
    ids = _union(masks.values())
    return ids - {VOID} | ({1} if coding == OBJECT_255 and VOID in ids else set())


def _nothing(folder: Path, classes: Sequence[str], masks: Mapping[Mask, Values]) -> str:
    return (
        f"{folder}: no pixel of a class but background; the masks hold {_listed(_union(masks.values()))}, the classes "
        f"are {_named(classes)}: write ids from 0 to {len(classes) - 1}, 255 being void"
    )


def _absent(folder: Path, classes: Sequence[str], shown: frozenset[int]) -> str:
    missing = [name for id, name in enumerate(classes) if id not in shown]
    why = ": are ids written from 1, or is background void?" if 0 not in shown else ""
    return f"{folder}: no pixel of {_named(missing)}{why}" if missing else ""


def _converted(folder: Path, masks: Mapping[Mask, Values]) -> str:
    count = sum(values.lossy for values in masks.values())
    return (
        f"{folder}: {count} of {len(masks)} masks are JPEG or WebP, which change values: what is lighter than a middle "
        "grey was taken for the object; save masks as PNG"
        if count
        else ""
    )


def _mixed(folder: Path, masks: Mapping[Mask, Values], coding: Coding) -> str:
    count = sum(VOID in values.ids and 1 not in values.ids for values in masks.values())
    return (
        f"{folder}: {count} of {len(masks)} masks hold 255 and no 1, which counts for nothing, since others hold 1; "
        "write the object alike in all"
        if count and coding == CLASS_IDS
        else ""
    )


def _inverted(folder: Path, classes: Sequence[str], masks: Mapping[Mask, Values]) -> str:
    """Where the object fills most of the pictures and nearly all of their edges."""
    share, edge = (float(np.mean([getattr(v, part) for v in masks.values()])) for part in ("object", "edge"))
    return (
        f"{folder}: {classes[1]} is {share:.0%} of the pixels and {edge:.0%} of those at the edges of the pictures: if "
        f"that is the background, write it as 0 and {classes[1]} as 1"
        if share > _MOST and edge > max(share, _NEARLY_ALL)
        else ""
    )


def _pixels(mask: Mask, id: int) -> str:
    count = int(np.count_nonzero(read_mask(mask) == id))
    return f"{count:,} pixel{'s' * (count != 1)}"


def _advice(ids: frozenset[int], count: int) -> str:
    if min(ids) == 1 and max(ids) == count:
        return "write them from 0, not from 1"
    if len(ids) > 2 * count and len(ids) > _VALUES:
        return "are they photographs, or smoothed? write one id for each class"
    return (
        f"write ids from 0 to {count - 1}, or 255 where none counts, or name more classes, or say in "
        "the recipe what these mean, by masks and ignore under [data]"
    )


def _union(masks: Iterable[Values]) -> frozenset[int]:
    return frozenset(id for values in masks for id in values.ids)


def _listed(ids: frozenset[int]) -> str:
    ordered = sorted(ids)
    return ", ".join(map(str, ordered[:_VALUES])) + (
        f" and {len(ordered) - _VALUES} more" if len(ordered) > _VALUES else ""
    )


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
