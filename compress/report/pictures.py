"""The images of a report with their masks: small enough to live inside the page, and kept beside it for a rebuild."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from compress import files
from compress.data.coding import labels_of
from compress.errors import DataError
from compress.report.palette import rgb_of

FILE = "pictures.npz"
PHOTO_PX = 480
LARGEST_PX = 8192
WORST = 8
IGNORED = 255
IGNORED_COLOUR = "#808080"
_WHITE = "#ffffff"
_PALE, _TINT, _SOLID = 115, 153, 255  # alpha of white where no class is, of a class's colour, of its outline


@dataclass(frozen=True)
class Picture:
    """One image with what the teacher, the student and the labels (None: no labels) see in it.

    Masks may be smaller than the photograph, or of another shape: each covers the whole of it. Of several labels at
    once they are int32: sets of labels.
    """

    name: str
    photo: bytes  # JPEG
    teacher: np.ndarray | None  # uint8 [H, W], class ids, or int32, sets of labels; None: it cannot be asked
    student: np.ndarray  # the same
    reference: np.ndarray | None  # the same; 255 of class ids is ignored
    student_iou: float  # 0..1, of the student's mask with the labels, or with the teacher's mask where there are none


def photo_of(image: np.ndarray, longest: int = PHOTO_PX) -> bytes:
    """JPEG of an image (uint8 RGB [H, W, 3]), of at most `longest` pixels either way."""
    small = Image.fromarray(image)
    small.thumbnail((longest, longest))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def pick(iou: Sequence[float], count: int) -> list[int]:
    """Indices of at most `count` images: the worst, then others evenly up to the best."""
    ranked = [int(index) for index in np.argsort(iou, kind="stable")]
    worst, others = ranked[:WORST], ranked[WORST:]
    room = min(count - len(worst), len(others))
    if room <= 0:
        return worst[:count]
    places = np.linspace(0, len(others) - 1, room + 1)[1:] if room < len(others) else np.arange(room)
    return worst + [others[round(place)] for place in places]


def to_npz(pictures: Sequence[Picture]) -> bytes:
    """The pictures as pictures.npz holds them."""
    facts = [{"name": each.name, "iou": each.student_iou} for each in pictures]
    arrays = {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)}
    for place, each in enumerate(pictures):
        arrays |= {
            f"photo {place}": np.frombuffer(each.photo, np.uint8),
            f"student {place}": each.student,
        }
        if each.teacher is not None:
            arrays[f"teacher {place}"] = each.teacher
        if each.reference is not None:
            arrays[f"labels {place}"] = each.reference
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def read_pictures(path: Path) -> list[Picture]:
    """The pictures in pictures.npz; none where there is no such file. Raises DataError for another file."""
    if not path.exists():
        return []
    try:
        files.size_of(path)  # a FIFO has no end
        with np.load(path, allow_pickle=False) as stored:
            facts = json.loads(stored["facts"].tobytes())
            return [
                Picture(
                    str(fact["name"]),
                    _photo(stored[f"photo {place}"]),
                    _mask(stored[f"teacher {place}"]) if f"teacher {place}" in stored else None,
                    _mask(stored[f"student {place}"]),
                    _mask(stored[f"labels {place}"]) if f"labels {place}" in stored else None,
                    _share(fact["iou"]),
                )
                for place, fact in enumerate(facts)
            ]
    except Exception as error:  # numpy, zipfile and json raise a dozen unrelated kinds on other files
        raise DataError(f"{path}: not the pictures of a report ({error}); remove it, or run compress again") from None


def _photo(stored: np.ndarray) -> bytes:
    data = stored.tobytes()
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        if max(image.size) > LARGEST_PX:
            raise ValueError(f"a photograph of {image.width}x{image.height}")
        image.verify()
    return data


def _mask(stored: np.ndarray) -> np.ndarray:
    if (
        stored.dtype not in (np.uint8, np.int32)
        or stored.ndim != 2
        or not 0 < min(stored.shape) <= max(stored.shape) <= LARGEST_PX
    ):
        raise ValueError(f"a mask of {stored.dtype}, {'x'.join(map(str, stored.shape))}")
    return stored


def _share(value: object) -> float:
    if not isinstance(value, float) or not 0 <= value <= 1:
        raise ValueError(f"an IoU of {value!r}")
    return value


def size_of(photo: bytes) -> tuple[int, int]:
    """Width and height of a JPEG."""
    return Image.open(io.BytesIO(photo)).size


def photo_uri(photo: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(photo).decode("ascii")


def mask_uri(labels: np.ndarray, palette: Sequence[str]) -> str:
    """PNG data URI of a mask [H, W], to be laid over the photograph."""
    buffer = io.BytesIO()
    layer = paint_sets(labels, palette) if labels.dtype == np.int32 else paint(labels, palette)
    Image.fromarray(layer).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def paint(labels: np.ndarray, palette: Sequence[str]) -> np.ndarray:
    """Class ids (uint8 [H, W]) as a layer, uint8 RGBA [H, W, 4]: every class tinted and outlined in its colour, paler
    where it has none, and as what is ignored where there is no such class."""
    colours = np.full((256, 4), (*rgb_of(IGNORED_COLOUR), _TINT), np.uint8)
    for id, colour in enumerate(palette):
        colours[id] = (*rgb_of(colour or _WHITE), _TINT if colour else _PALE)
    layer = colours[labels]
    layer[_edges(labels) & (layer[..., 3] == _TINT), 3] = _SOLID
    return layer


def paint_sets(sets: np.ndarray, palette: Sequence[str]) -> np.ndarray:
    """Sets of labels (int32 [H, W]) as such a layer: where labels lie over each other, the mean of their colours."""
    found, places = np.unique(sets, return_inverse=True)
    colours = np.full((len(found), 4), (255, 255, 255, _PALE), np.uint8)
    for row, one in enumerate(found.tolist()):
        labels = [rgb_of(palette[label]) for label in labels_of(one, len(palette))]
        if labels:
            colours[row] = (*np.mean(labels, axis=0).round().astype(int), _TINT)
    layer = colours[places.reshape(sets.shape)]
    layer[_edges(sets) & (sets != 0), 3] = _SOLID
    return layer


def _edges(labels: np.ndarray) -> np.ndarray:
    """Where a pixel's right or lower, left or upper neighbour has another class; bool [H, W]."""
    edge = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge
