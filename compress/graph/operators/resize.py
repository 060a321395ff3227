"""Resizing to another height and width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from compress.graph.operators.operator import (
    Attributes,
    Call,
    Channels,
    OnnxForm,
    OnSteps,
    Operator,
    Pair,
    Scale,
    TfliteForm,
    Work,
    of_inputs,
)

if TYPE_CHECKING:
    from torch import Tensor

    from compress.graph.quantized import QuantizedOperator, TensorSpec


@dataclass(frozen=True)
class ResizeAttributes(Attributes):
    """`mode`: "bilinear", with half-pixel centres (align_corners false), or "nearest". `size`: of the result."""

    mode: str
    size: Pair

    def at(self, size: Pair, traced_size: Pair) -> ResizeAttributes:
        """In proportion to the image."""
        height, width = (round(s * now / traced) for s, now, traced in zip(self.size, size, traced_size))
        return replace(self, size=(height, width))


def _bilinear_of(call: Call) -> ResizeAttributes | str:
    return "with align_corners=True" if call.arguments["align_corners"] else _sized(call, "bilinear")


def _nearest_of(call: Call) -> ResizeAttributes | str:
    return _sized(call, "nearest")


def _sized(call: Call, mode: str) -> ResizeAttributes | str:
    """torch places pixels by a scale factor that it is given, files by the sizes: they agree where it is exact."""
    a, size = call.arguments, (int(call.result[2]), int(call.result[3]))
    factors = a.get("scale_factors") or (a.get("scales_h"), a.get("scales_w"))
    source = next(iter(call.shapes.values()))[2:]
    for factor, before, after in zip(factors, source, size):
        if factor is not None and abs(before * factor - after) > 1e-3:
            return (
                f"with a scale factor of {factor:g}, which makes {before * factor:g} of {before} pixels "
                f"(write size={size}, or recompute_scale_factor=True)"
            )
    return ResizeAttributes(mode, size)


def _compute(x: Sequence[Tensor], a: ResizeAttributes) -> Tensor:
    from torch.nn import functional as F

    return F.interpolate(x[0], a.size, mode=a.mode, align_corners=False if a.mode == "bilinear" else None)


_MODES = {
    "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    # torch's "nearest" takes floor(index * in / out); only its "bilinear" has half-pixel centres
    "nearest": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
}


def _onnx(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[OnnxForm, ...]:
    import numpy as np

    return (OnnxForm("Resize", _MODES[node.attrs.mode], (None, None, np.array(result.shape, np.int64))),)


def _tflite(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[TfliteForm, ...]:
    size = (tuple(result.shape[2:]),)
    if node.attrs.mode == "bilinear":
        options = ("ResizeBilinearOptions", {"halfPixelCenters": True})
        return (TfliteForm("RESIZE_BILINEAR", options, (3, 3), after=size),)
    return (TfliteForm("RESIZE_NEAREST_NEIGHBOR", ("ResizeNearestNeighborOptions", {}), after=size),)


RESIZE = Operator(
    name="resize",
    inputs=1,
    attributes=ResizeAttributes,
    channels=Channels.PASSES,
    scale=Scale.OF_INPUTS,
    on_steps=OnSteps.AVERAGES,
    work=Work.WRITING,
    aten={
        "upsample_bilinear2d.vec": _bilinear_of,
        "upsample_bilinear2d.default": _bilinear_of,
        "upsample_nearest2d.vec": _nearest_of,
        "upsample_nearest2d.default": _nearest_of,
    },
    compute=_compute,
    onnx=_onnx,
    tflite=_tflite,
    onnx_float="onnxruntime's integer kernel truncates, so it runs in float between the same integers",
    homogeneous=True,
    bounds=of_inputs,
)
