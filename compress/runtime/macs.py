"""Multiply-accumulates of one inference, counted from an exported file: its operators, with the shapes that the runtime
itself works out.

Counted are convolutions, products of matrices and what is made of these, whatever their numbers are. Convolutions that
are transposed multiply every input with their taps, others what they read for every output, paddings too. Everything
else, such as sums, activations and resizing, counts as nothing. A file with an operator of which that is not known, as
one of its maker's own or a recurrent one, is not counted at all.
"""

import importlib
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compress.errors import MeasureError
from compress.runtime.session import open_interpreter

Shape = tuple[int, ...]


@dataclass(frozen=True)
class _Node:
    """An operator of a file. `shapes` of what it reads, None where it reads nothing or it is not known; `result`: of
    its first output; `flags`: its attributes that are whole numbers."""

    name: str
    shapes: Sequence[Shape | None]
    result: Shape | None
    flags: dict[str, int]

    def read(self, index: int) -> Shape:
        return _known(self, self.shapes[index] if index < len(self.shapes) else None)

    @property
    def made(self) -> Shape:
        return _known(self, self.result)


class _UncountedError(Exception):
    """Why a file cannot be counted."""


def _known(node: _Node, shape: Shape | None) -> Shape:
    if shape is None or min(shape, default=0) < 0:
        raise _UncountedError(f"the shapes of a {node.name} are not fixed")
    return shape


_Count = Callable[[_Node], int]


def _filter(weight: int, axes: slice = slice(1, None)) -> _Count:
    """Of a convolution that reads `axes` of its weight, the input with that number, for every output."""
    return lambda node: math.prod(node.made) * math.prod(node.read(weight)[axes])


def _transposed(source: int, weight: int, axes: slice = slice(1, None)) -> _Count:
    """The same for every value of the input with the number `source`."""
    return lambda node: math.prod(node.read(source)) * math.prod(node.read(weight)[axes])


def _product(turned: str = "") -> _Count:
    """Of matrices. `turned`: the flag by which the first one is read the other way round."""

    def count(node: _Node) -> int:
        left = node.read(0)
        if not left:
            raise _UncountedError(f"a {node.name} of no matrices")
        return math.prod(node.made) * left[-2 if turned and node.flags.get(turned) and len(left) > 1 else -1]

    return count


def _batch_product(node: _Node) -> int:
    """Of matrices of which the first may be read the other way round: [..., M, K] or [..., K, M] to [..., M, N]."""
    left, made = node.read(0), node.made
    rows = made[-2] if len(made) > 1 else 1
    return math.prod(made) * math.prod(left[-2:]) // max(rows, 1)


def _named(names: str) -> frozenset[str]:
    return frozenset(names.split())


_ONNX: dict[str, _Count] = {
    "Conv": _filter(1),
    "ConvInteger": _filter(1),
    "DeformConv": _filter(1),
    "QLinearConv": _filter(3),
    "ConvTranspose": _transposed(0, 1),
    "MatMul": _product(),
    "MatMulInteger": _product(),
    "QLinearMatMul": _product(),
    "Gemm": _product("transA"),
}
_ONNX_NOTHING = _named(
    """Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization BitShift
    BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu CenterCropPad Clip Col2Im Compress Concat
    Constant ConstantOfShape Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear Elu
    Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu GlobalAveragePool GlobalLpPool
    GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity
    InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
    LpNormalization LpPool Max MaxPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization Min Mish Mod Mul Neg
    NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear RMSNormalization Range Reciprocal ReduceL1
    ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu
    Reshape Resize RoiAlign Round Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size
    Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK
    Transpose Trilu Unsqueeze Upsample Where Xor"""
)
_FUSED: dict[str, _Count] = {
    "FusedConv": _filter(1),
    "NhwcFusedConv": _filter(1),
    "QLinearConv": _filter(3),
    "FusedGemm": _product("transA"),
    "FusedMatMul": _product("transA"),
    "QGemm": _product("transA"),
    "MatMulIntegerToFloat": _product(),
    "DynamicQuantizeMatMul": _product(),
}
"""What onnxruntime makes of several operators, in an ORT file."""
_FUSED_NOTHING = _named(
    """BiasGelu BiasSoftmax DequantizeLinear FastGelu Gelu NhwcMaxPool QLinearAdd QLinearAveragePool QLinearConcat
    QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax
    QLinearWhere QuantizeLinear QuickGelu SkipLayerNormalization"""
)
_ONNX_DOMAINS = {"": (_ONNX, _ONNX_NOTHING), "com.microsoft": (_FUSED, _FUSED_NOTHING)}

_TFLITE: dict[str, _Count] = {
    "CONV_2D": _filter(1),
    "CONV_3D": _filter(1, slice(0, 4)),
    "DEPTHWISE_CONV_2D": _filter(1, slice(1, 3)),
    "TRANSPOSE_CONV": _transposed(2, 1, slice(0, 3)),
    "CONV_3D_TRANSPOSE": _transposed(2, 1, slice(0, 4)),
    "FULLY_CONNECTED": _filter(1),
    "BATCH_MATMUL": _batch_product,
}
_TFLITE_NOTHING = _named(
    """ABS ADD ADD_N ARG_MAX ARG_MIN ATAN2 AVERAGE_POOL_2D BATCH_TO_SPACE_ND BITCAST BITWISE_XOR BROADCAST_ARGS
    BROADCAST_TO CAST CEIL CONCATENATION COS CUMSUM DENSIFY DEPTH_TO_SPACE DEQUANTIZE DILATE DIV
    DYNAMIC_UPDATE_SLICE ELU EQUAL EXP EXPAND_DIMS FAKE_QUANT FILL FLOOR FLOOR_DIV FLOOR_MOD GATHER GATHER_ND GELU
    GREATER GREATER_EQUAL HARD_SWISH L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL
    LOCAL_RESPONSE_NORMALIZATION LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D
    MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL ONE_HOT PACK PAD PADV2 POW PRELU QUANTIZE RANGE RANK REDUCE_ALL
    REDUCE_ANY REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR REVERSE_V2 RIGHT_SHIFT ROUND RSQRT SCATTER_ND SELECT SELECT_V2 SHAPE SIGN SIN SLICE
    SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB
    SUM TANH TILE TOPK_V2 TRANSPOSE UNPACK WHERE ZEROS_LIKE"""
)


def count_macs(path: Path) -> int:
    """Of an .onnx, .ort or .tflite file. Raises MeasureError, in one line, for one that cannot be counted. To be called
    in a child process, as native code reads the file."""
    try:
        return sum(_READERS[path.suffix](path))
    except _UncountedError as error:
        raise MeasureError(f"{path}: its multiply-accumulates cannot be counted: {error}") from None
    except Exception as error:  # each runtime, and each parser, raises types of its own
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise MeasureError(f"{path}: its multiply-accumulates cannot be counted: {reason}") from None


def _counted(node: _Node, counts: dict[str, _Count], nothing: frozenset[str]) -> int:
    if node.name in counts:
        return counts[node.name](node)
    if node.name in nothing:
        return 0
    raise _UncountedError(f"what a {node.name} multiplies is not known")


# --- TFLite


def _of_tflite(path: Path) -> Iterator[int]:
    interpreter = open_interpreter(path, threads=1)
    shapes = {each["index"]: tuple(map(int, each["shape"])) for each in interpreter.get_tensor_details()}
    for operator in interpreter._get_ops_details():  # the shapes that the interpreter gave them, not those of the file
        if operator["op_name"] != "DELEGATE":  # what a delegate runs is listed too
            read, made = ([shapes.get(int(index)) for index in operator[end]] for end in ("inputs", "outputs"))
            yield _counted(_Node(operator["op_name"], read, made[0] if made else None, {}), _TFLITE, _TFLITE_NOTHING)


# --- ONNX and ORT


def _of_onnx(path: Path) -> Iterator[int]:
    """Of what onnxruntime makes of the file before it fuses anything: constants are computed, so shapes are known."""
    import onnxruntime as ort

    with TemporaryDirectory(prefix="compress-") as folder:
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "model.ort")
        options.add_session_config_entry("session.save_model_format", "ORT")
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.log_severity_level = 3
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        yield from _of_ort(Path(options.optimized_model_filepath))


def _of_ort(path: Path) -> Iterator[int]:
    graph = _tables("InferenceSession").GetRootAs(path.read_bytes(), 0).Model().Graph()
    shapes = {value.Name(): _shape(value) for value in _each(graph, "NodeArgs")}
    shapes |= {each.Name(): tuple(_each(each, "Dims")) for each in _each(graph, "Initializers")}
    for node in _each(graph, "Nodes"):
        counts, nothing = _ONNX_DOMAINS.get((node.Domain() or b"").decode(), ({}, frozenset()))
        read, made = ([shapes.get(name) for name in _each(node, end)] for end in ("Inputs", "Outputs"))
        flags = {each.Name().decode(): int(each.I()) for each in _each(node, "Attributes")}
        yield _counted(_Node(node.OpType().decode(), read, made[0] if made else None, flags), counts, nothing)


def _shape(value: Any) -> Shape | None:
    """Of a tensor; -1 where a size is not fixed."""
    kind = value.Type()
    if kind is None or kind.ValueType() != _tables("TypeInfoValue").tensor_type:
        return None
    tensor, union = _tables("TensorTypeAndShape")(), kind.Value()
    tensor.Init(union.Bytes, union.Pos)
    if tensor.Shape() is None:
        return None
    sizes = [size.Value() for size in _each(tensor.Shape(), "Dim")]
    fixed = _tables("DimensionValueType").VALUE
    return tuple(size.DimValue() if size.DimType() == fixed else -1 for size in sizes)


def _each(table: Any, name: str) -> Iterable[Any]:
    """The entries of a vector of a FlatBuffer's table."""
    return (getattr(table, name)(index) for index in range(getattr(table, f"{name}Length")()))


@cache
def _tables(name: str) -> Any:
    """A class of onnxruntime's own reader of ORT files. The package around it would import torch."""
    import onnxruntime

    place = str(Path(onnxruntime.__file__).parent / "tools" / "ort_format_model")
    if place not in sys.path:
        sys.path.append(place)
    return getattr(importlib.import_module(f"ort_flatbuffers_py.fbs.{name}"), name)


_READERS: dict[str, Callable[[Path], Iterable[int]]] = {".onnx": _of_onnx, ".ort": _of_ort, ".tflite": _of_tflite}
