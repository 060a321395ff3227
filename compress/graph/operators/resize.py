"""Resizing to another height and width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from compress.graph.operators.operator import (
    IN_FLOAT,
    Attributes,
    Call,
    Channels,
    FromAten,
    OnnxForm,
    OnSteps,
    Operator,
    Pair,
    Scale,
    TfliteForm,
    Work,
    call,
    literal,
    of_inputs,
)
from compress.graph.operators.spatial import mapped_tflite, sizes

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from compress.graph.quantized import QuantizedOperator, TensorSpec


@dataclass(frozen=True)
class ResizeAttributes(Attributes):
    """`mode`: "bilinear" or "nearest". `size`: of the result. `align_corners`: the corner pixels of both lie upon each
    other; else pixels have half-pixel centres. "nearest" has neither."""

    mode: str
    size: Pair
    align_corners: bool = False

    def at(self, size: Pair, traced_size: Pair) -> ResizeAttributes:
        """In proportion to the image."""
        height, width = (round(s * now / traced) for s, now, traced in zip(self.size, size, traced_size))
        return replace(self, size=(height, width))


def _of(mode: str) -> FromAten:
    """torch places pixels by a scale factor that it is given, files by the sizes: they agree where it is exact, and
    where corners lie upon each other."""

    def rule(call: Call) -> ResizeAttributes | str:
        a, size = call.arguments, (int(call.result[2]), int(call.result[3]))
        if a.get("align_corners"):
            return ResizeAttributes(mode, size, align_corners=True)
        factors = a.get("scale_factors") or (a.get("scales_h"), a.get("scales_w"))
        source = next(iter(call.shapes.values()))[2:]
        for factor, before, after in zip(factors, source, size):
            if factor is not None and abs(before * factor - after) > 1e-3:
                return (
                    f"with a scale factor of {factor:g}, which makes {before * factor:g} of {before} pixels "
                    f"(write size={size}, or recompute_scale_factor=True)"
                )
        return ResizeAttributes(mode, size)

    return rule


def _in_both_ways(name: str, mode: str) -> dict[str, FromAten]:
    return {f"{name}.vec": _of(mode), f"{name}.default": _of(mode)}


def _compute(x: Sequence[Tensor], a: ResizeAttributes) -> Tensor:
    from torch.nn import functional as F

    return F.interpolate(x[0], a.size, mode=a.mode, align_corners=None if a.mode == "nearest" else a.align_corners)


def _torch(node: QuantizedOperator, x: Sequence[str]) -> str:
    """`at`, which whoever writes the text defines, is the size in proportion to the image's."""
    a = node.attrs
    corners = {} if a.mode == "nearest" else {"align_corners": a.align_corners}
    size = f"at({literal(a.size[0])}, {literal(a.size[1])})"
    return call("F.interpolate", x[0], size, mode=a.mode, **corners)


_MODES: Mapping[str, Mapping[str, Any]] = {
    "bilinear": {"mode": "linear"},
    # torch's "nearest" takes floor(index * in / out)
    "nearest": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.75},
}


def _onnx(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[OnnxForm, ...]:
    import numpy as np

    places = {"coordinate_transformation_mode": "align_corners" if node.attrs.align_corners else "half_pixel"}
    return (OnnxForm("Resize", {**places, **_MODES[node.attrs.mode]}, (None, None, np.array(result.shape, np.int64))),)


def _tflite(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[TfliteForm, ...]:
    size, aligned = (tuple(result.shape[2:]),), node.attrs.align_corners
    if node.attrs.mode == "bilinear":
        options = ("ResizeBilinearOptions", {"alignCorners": True} if aligned else {"halfPixelCenters": True})
        return (TfliteForm("RESIZE_BILINEAR", options, (3, 3), after=size),)
    return (TfliteForm("RESIZE_NEAREST_NEIGHBOR", ("ResizeNearestNeighborOptions", {}), after=size),)


def _bicubic_tflite(node: QuantizedOperator, source: TensorSpec, result: TensorSpec) -> tuple[TfliteForm, ...]:
    return mapped_tflite(source, *(cubic_map(*ends, node.attrs.align_corners) for ends in sizes(source, result)))


def cubic_map(old: int, new: int, align_corners: bool) -> np.ndarray:
    """[new, old] float32: what each pixel along one axis takes of those before, by Keys's cubic (1981) with a = -0.75,
    as torch has it; beyond the border stands the border's pixel."""
    import numpy as np

    index = np.arange(new)
    places = index * (old - 1) / max(new - 1, 1) if align_corners else (index + 0.5) * old / new - 0.5
    first = np.floor(places).astype(int)
    matrix = np.zeros((new, old))
    for step in range(-1, 3):
        share = _cubic(np.abs(places - first - step))
        np.add.at(matrix, (index, np.clip(first + step, 0, old - 1)), share)
    return matrix.astype(np.float32)


def _cubic(x: np.ndarray, a: float = -0.75) -> np.ndarray:
    import numpy as np

    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((x - 5) * x + 8) * x - 4
    return np.where(x <= 1, near, a * far)


RESIZE = Operator(
    name="resize",
    inputs=1,
    attributes=ResizeAttributes,
    channels=Channels.PASSES,
    scale=Scale.OF_INPUTS,
    on_steps=OnSteps.AVERAGES,
    work=Work.WRITING,
    aten={
        **_in_both_ways("upsample_bilinear2d", "bilinear"),
        **_in_both_ways("upsample_nearest2d", "nearest"),
    },
    compute=_compute,
    torch=_torch,
    onnx=_onnx,
    tflite=_tflite,
    onnx_float="onnxruntime's integer kernel truncates, so it runs in float between the same integers",
    homogeneous=True,
    bounds=of_inputs,
)
BICUBIC = Operator(
    name="bicubic",
    inputs=1,
    attributes=ResizeAttributes,
    channels=Channels.PASSES,
    scale=Scale.OWN,  # it overshoots what it reads
    on_steps=OnSteps.LINEAR,
    work=Work.WRITING,
    aten=_in_both_ways("upsample_bicubic2d", "bicubic"),
    compute=_compute,
    torch=_torch,
    onnx=_onnx,
    tflite=_bicubic_tflite,
    onnx_float=IN_FLOAT,
    homogeneous=True,
)
