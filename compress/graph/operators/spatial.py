"""Linear maps of height and width, each channel alike: what file formats have no operator for is two products of
matrices, one along each axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.graph.operators.operator import OnnxForm, Pair, TfliteForm

if TYPE_CHECKING:
    import numpy as np

    from compress.graph.quantized import TensorSpec


def sizes(source: TensorSpec, result: TensorSpec) -> tuple[Pair, Pair]:
    """Before and after, of height and of width."""
    return (source.shape[2], result.shape[2]), (source.shape[3], result.shape[3])


def mapped_onnx(rows: np.ndarray, columns: np.ndarray) -> tuple[OnnxForm, ...]:
    """rows @ x @ columns.T for each channel; [new height, height] and [new width, width] float32."""
    turned = OnnxForm("Transpose", {"perm": (0, 1, 3, 2)})
    return (OnnxForm("MatMul", constants=(columns.T,)), turned, OnnxForm("MatMul", constants=(rows.T,)), turned)


def mapped_tflite(source: TensorSpec, rows: np.ndarray, columns: np.ndarray) -> tuple[TfliteForm, ...]:
    """The same of NHWC, where width stands before channels, and height before both taken as one."""
    _, channels, height, _ = source.shape
    high, wide = len(rows), len(columns)
    steps = [(1, height, wide, channels), (1, height, wide * channels), (1, high, wide * channels)]
    across, flat, down = steps
    return (
        TfliteForm("BATCH_MATMUL", ("BatchMatMulOptions", {}), before=(columns,), shape=across, in_float=True),
        TfliteForm("RESHAPE", ("ReshapeOptions", {}), after=(flat,), shape=flat, in_float=True),
        TfliteForm("BATCH_MATMUL", ("BatchMatMulOptions", {}), before=(rows,), shape=down, in_float=True),
        TfliteForm("RESHAPE", ("ReshapeOptions", {}), after=((1, high, wide, channels),), in_float=True),
    )
