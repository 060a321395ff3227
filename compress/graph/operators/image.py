"""The image that a network reads: the only node without an input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from compress.errors import ExportError
from compress.graph.operators.operator import Attributes, Channels, OnSteps, Operator, Pair, Scale, Work


@dataclass(frozen=True)
class ImageAttributes(Attributes):
    """real value = scale * (pixel - zero_point); `size`: the height and width that the network was traced at.
    `channels` are told by the weights too, and are no part of what a network is known by."""

    scale: float
    zero_point: int
    size: Pair
    channels: int = field(default=3, repr=False)


def _given(*_: Any) -> Any:
    raise ExportError("the image is given to a network: nothing computes it")


IMAGE = Operator(
    name="input",
    inputs=0,
    attributes=ImageAttributes,
    channels=Channels.IMAGE,
    scale=Scale.IMAGE,
    on_steps=OnSteps.MOVES,
    work=Work.NOTHING,
    compute=_given,
    torch=_given,
    onnx=_given,
    tflite=_given,
)
