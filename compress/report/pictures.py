"""Validation images with their masks, small enough to live inside the report."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

THUMBNAIL_PX = 240
IGNORED = 255
_IGNORED_COLOUR = (128, 128, 128)
# After Okabe and Ito (2008), whom colour-blind readers can follow; magenta first, the rarest in photographs.
_COLOURS = (
    (208, 28, 139),
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (86, 180, 233),
    (213, 94, 0),
)


@dataclass(frozen=True)
class Picture:
    """One validation image with what the teacher, the student and the labels (None: no labels) see in it."""

    name: str
    image: np.ndarray  # uint8 [H, W, 3], RGB
    teacher: np.ndarray  # uint8 [H, W], class ids
    student: np.ndarray  # uint8 [H, W], class ids
    reference: np.ndarray | None  # uint8 [H, W], class ids, 255 ignored
    student_iou: float  # 0..1, of the student's mask


def colour_of(label: int) -> tuple[int, int, int]:
    """RGB of a class id above 0; beyond seven classes the colours repeat, darker each time."""
    if label == IGNORED:
        return _IGNORED_COLOUR
    turn, place = divmod(label - 1, len(_COLOURS))
    red, green, blue = _COLOURS[place]
    return red >> turn, green >> turn, blue >> turn


def thumbnail(image: np.ndarray, mask: np.ndarray | None = None) -> str:
    """JPEG data URI of an image (uint8 [H, W, 3]) of at most 240 px, painted with a mask (uint8 [H, W])."""
    small = Image.fromarray(image)
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    if mask is not None:
        labels = np.asarray(Image.fromarray(mask).resize(small.size, Image.Resampling.NEAREST))
        small = Image.fromarray(paint(np.asarray(small), labels))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def paint(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The image (uint8 [H, W, 3]) with every class but 0 tinted and outlined, the rest paler; uint8 [H, W, 3]."""
    painted = image * 0.55 + 0.45 * 255
    edge = _edges(labels)
    for label in np.unique(labels[labels > 0]):
        here = labels == label
        painted[here] = image[here] * 0.4 + np.array(colour_of(int(label))) * 0.6
        painted[here & edge] = colour_of(int(label))
    return painted.round().astype(np.uint8)


def _edges(labels: np.ndarray) -> np.ndarray:
    """Where a pixel's right or lower, left or upper neighbour has another class; bool [H, W]."""
    edge = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge
