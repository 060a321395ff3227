"""The pictures of a page as values for its template: the median one first, the worst under their own heading."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from compress.report.pictures import IGNORED, IGNORED_COLOUR, WORST, Picture, mask_uri, photo_uri, size_of

COMPARED = 4


@dataclass(frozen=True)
class Layer:
    """An image of the store of a page, which shows it wherever it is wanted and holds it once."""

    key: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Shown:
    """One picture: the photograph, and the masks that can be laid over it, by whose they are."""

    name: str
    words: str  # what `iou` is of
    iou: str
    rank: int  # 0: the student's worst
    photo: Layer
    masks: dict[str, Layer]

    @property
    def labelled(self) -> bool:
        return "labels" in self.masks

    @property
    def layers(self) -> list[Layer]:
        return [self.photo, *self.masks.values()]


@dataclass(frozen=True)
class Gallery:
    """`typical` is None only where there is no picture; it stands among the worst or the others too."""

    typical: Shown | None = None
    basis: str = ""  # what `typical` is typical of
    worst: list[Shown] = field(default_factory=list)
    others: list[Shown] = field(default_factory=list)

    @property
    def shown(self) -> list[Shown]:
        return [*self.worst, *self.others]

    @property
    def layers(self) -> list[Layer]:
        return [layer for shown in self.shown for layer in shown.layers]


def gallery(pictures: Sequence[Picture], per_image_iou: Sequence[float], palette: Sequence[str]) -> Gallery:
    """`per_image_iou`: of all the images that were measured on, of which the pictures may be some."""
    ranked = sorted(pictures, key=lambda picture: picture.student_iou)
    if not ranked:
        return Gallery()
    own = [picture.student_iou for picture in ranked]
    part = set(own) <= set(per_image_iou)
    level = median(per_image_iou) if part else own[(len(own) - 1) // 2]
    middle = min(range(len(own)), key=lambda rank: abs(own[rank] - level))
    shown = [_shown(picture, rank, palette) for rank, picture in enumerate(ranked)]
    basis = (
        f"nearest to the median of {len(per_image_iou)} images" if part else f"the middle one of {len(own)} pictures"
    )
    end = min(WORST, middle)
    return Gallery(shown[middle], basis, shown[:end], shown[end:])


def _shown(picture: Picture, rank: int, palette: Sequence[str]) -> Shown:
    labelled = picture.reference is not None
    width, height = size_of(picture.photo)
    masks = {} if picture.teacher is None else {"teacher": picture.teacher}
    masks["student"] = picture.student
    if picture.reference is not None:
        masks["labels"] = picture.reference
    return Shown(
        picture.name,
        "student IoU" if labelled else "agreement with the teacher, IoU",
        f"{picture.student_iou:.3f}",
        rank,
        Layer(f"photo-{rank}", photo_uri(picture.photo), width, height),
        {side: Layer(f"{side}-{rank}", mask_uri(mask, palette), width, height) for side, mask in masks.items()},
    )


def sides(shown: Sequence[Shown]) -> list[str]:
    """What the left half of the browser can show."""
    found = {side for picture in shown for side in picture.masks}
    return [*(side for side in ("teacher", "labels") if side in found), "photo"]


def legend(
    classes: Sequence[str], pictures: Sequence[Picture], palette: Sequence[str], multilabel: bool = False
) -> list[tuple[str, str]]:
    """Every class label with the CSS colour of its paint; what is of none is paler."""
    if multilabel:
        return [*zip(classes, palette, strict=True), ("no label (paler)", "")]
    found = [
        (label, colour) if colour else (f"{label} (paler)", "") for label, colour in zip(classes, palette, strict=True)
    ]
    if any(picture.reference is not None and (picture.reference == IGNORED).any() for picture in pictures):
        found.append(("ignored in the labels", IGNORED_COLOUR))
    return found


def side_by_side(runs: Mapping[str, Sequence[Picture]], palettes: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """The pictures that all the runs kept: the one of the median IoU in the first run, then those on which another one
    differs most."""
    (name, first), *others = runs.items()
    known = {other: {_identity(picture): picture for picture in pictures} for other, pictures in others}
    ranked = sorted(first, key=lambda picture: picture.student_iou)
    rows = [
        {name: picture} | {other: theirs[_identity(picture)] for other, theirs in known.items()}
        for picture in ranked
        if all(_identity(picture) in theirs for theirs in known.values())
    ]
    if not rows:
        return []
    typical = rows.pop((len(rows) - 1) // 2)
    apart = sorted(rows, key=lambda row: -np.ptp([picture.student_iou for picture in row.values()]))
    return [_row(place, row, palettes) for place, row in enumerate([typical, *apart[: COMPARED - 1]])]


def _identity(picture: Picture) -> tuple[str, str]:
    return picture.name, hashlib.sha256(picture.photo).hexdigest()


def _row(place: int, row: Mapping[str, Picture], palettes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    first = next(iter(row.values()))
    width, height = size_of(first.photo)
    return {
        "name": first.name,
        "photo": Layer(f"photo-{place}", photo_uri(first.photo), width, height),
        "masks": [
            (
                run,
                f"{picture.student_iou:.3f}",
                Layer(f"mask-{place}-{number}", mask_uri(picture.student, palettes[run]), width, height),
            )
            for number, (run, picture) in enumerate(row.items())
        ],
    }
