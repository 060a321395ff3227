"""What an app relies on, whatever format it loads: which pixels go in, and what the map that comes out means."""

from collections.abc import Sequence
from typing import Any

from compress.formats.artifact import LOGITS, named_channels

RESIZE, FIT, UPRIGHT = "bilinear, antialiased", "stretch", "upright, as EXIF says"
MAP_RESIZE = "bilinear, before the decision"
ARGMAX, THRESHOLD = "argmax", "threshold"


def input_contract(given: dict[str, Any]) -> dict[str, Any]:
    """Of a file's input, as its entry in the manifest states it. Raises KeyError, TypeError or ValueError for one that
    states no image."""
    height, width, channels = _sides(given)
    return {
        "height": height,
        "width": width,
        "channels": channels,
        "colours": named_channels(channels).rstrip(","),
        "resize": RESIZE,
        "fit": FIT,
        "orientation": UPRIGHT,
        "range": list(given["range"]) if given.get("range") else None,
    }


def output_contract(made: dict[str, Any], classes: Sequence[str], multilabel: bool) -> dict[str, Any]:
    """Of a file's output, as its entry in the manifest states it. A map of one channel is of the second class. Raises
    as `input_contract` does."""
    height, width, channels = _sides(made)
    by_threshold = multilabel or channels == 1
    lowest = 0.0 if made.get("activation") == LOGITS else 0.5
    return {
        "height": height,
        "width": width,
        "channels": list(classes[1:] if channels == 1 and len(classes) == 2 else classes),
        "values": made.get("activation"),
        "decision": THRESHOLD if by_threshold else ARGMAX,
        "threshold": lowest if by_threshold else None,
        "resize": MAP_RESIZE,
    }


def _sides(spec: dict[str, Any]) -> tuple[int, int, int]:
    shape, layout = spec["shape"], spec["layout"]
    height, width, channels = (int(shape[layout.index(axis)]) for axis in "HWC")
    return height, width, channels
