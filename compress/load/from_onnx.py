"""An ONNX file as a torch module, so that it goes through the same door as any other.

Each node on the way from the image is said in torch; what depends on constants and shapes alone is computed by ONNX's
own reference evaluator, as its shapes at the traced size are known.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn
from torch.nn import functional as F

from compress.errors import ModelError, UnknownOperators
from compress.formats.whole import stored_tensors

READABLE = (
    TensorProto.UNDEFINED,
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.DOUBLE,
    TensorProto.UINT8,
)
"""What an image may be."""
Value = Any
"""A Tensor that depends on the image, or a numpy array that does not; None for an input that is left out."""


def read_onnx(path: Path) -> "OnnxModule":
    """Raises ModelError for a file that is no ONNX model, whose weights lie outside its folder, or which holds an
    operator that is not known here."""
    try:
        model = onnx.load(str(path), load_external_data=False)
        _check_external(model, path)
        onnx.load_external_data_for_model(model, str(path.parent))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{path}: is no ONNX model: {str(error).splitlines()[0] if str(error) else error!r}") from None
    images = _given(model.graph)
    if len(images) != 1 or not model.graph.output:
        raise ModelError(f"{path}: reads {len(images)} tensors and gives {len(model.graph.output)}; expected one image")
    kind = images[0].type.tensor_type.elem_type
    if kind not in READABLE:
        name = TensorProto.DataType.Name(kind).lower()
        raise ModelError(f"{path}: its image is {name}; files are written here for 8 bits of each channel")
    _check_complete(model, path)
    nodes = _from_image(model)
    unknown = [node for node in nodes if _key(node) not in OPERATORS]
    if unknown:
        raise UnknownOperators(
            f"{path}: holds operators that are not known here: {', '.join(sorted({_said(node) for node in unknown}))}",
            [f"{node.name or ', '.join(node.output)}: operator {_said(node)}" for node in unknown],
            Counter(node.op_type for node in nodes if _key(node) in OPERATORS),
        )
    return OnnxModule(model)


def _given(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are not stored in the file."""
    stored = {tensor.name for tensor in graph.initializer}
    return [each for each in graph.input if each.name not in stored]


def _check_complete(model: onnx.ModelProto, path: Path) -> None:
    graph = model.graph
    given = {"", *(each.name for each in (*graph.initializer, *graph.input))}
    for node in graph.node:
        if missing := [name for name in node.input if name not in given]:
            where = node.name or node.op_type
            raise ModelError(f"{path}: {where} reads {missing[0]}, which nothing before it gives; export it anew")
        given.update(node.output)
    if missing := [each.name for each in graph.output if each.name not in given]:
        raise ModelError(f"{path}: its output {missing[0]} is given by no operator; export it anew")


def _said(node: NodeProto) -> str:
    return f"{node.domain}.{node.op_type}".lstrip(".")


def _check_external(model: onnx.ModelProto, path: Path) -> None:
    for tensor in stored_tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                place = (path.parent / entry.value).resolve()
                if not place.is_relative_to(path.parent.resolve()):
                    raise ModelError(f"{path}: {tensor.name} has its data outside the file's folder: {entry.value}")
                if not place.is_file():
                    raise ModelError(f"{path}: {tensor.name} has its data in {entry.value}, which is not there")


LAYERS = {"Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "LayerNormalization", "MatMul",
          "GroupNormalization", "Gemm", "PRelu"}  # fmt: skip
"""Whose constants are parameters, even if they are one number."""


class OnnxModule(nn.Module):
    """The graph, for one float32 image [1, C, H, W]. Its parameters are the float initializers, in float32."""

    def __init__(self, model: onnx.ModelProto):
        super().__init__()
        graph = model.graph
        self.opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 1)
        (self.image,) = _given(graph)
        self.outputs = [each.name for each in graph.output]
        self.nodes = list(graph.node)
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        of_layers = {name for node in graph.node if node.op_type in LAYERS for name in node.input}
        self.constants: dict[str, np.ndarray] = {}
        self.held: dict[str, tuple[nn.Module, str]] = {}  # by initializer: where it is, as a parameter
        for name, array in stored.items():
            if array.dtype in (np.float16, np.float32, np.float64) and (array.size > 1 or name in of_layers):
                parameter = nn.Parameter(torch.from_numpy(array.astype(np.float32)), requires_grad=False)
                self.held[name] = _placed(self, name, parameter)
            self.constants[name] = array

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Of the image; None where the file leaves it free."""
        return tuple(d.dim_value or None for d in self.image.type.tensor_type.shape.dim)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        values: dict[str, Value] = {"": None, **self.constants, self.image.name: image}
        for node in self.nodes:
            given = [values[name] for name in node.input]
            if any(isinstance(value, Tensor) for value in given) and node.op_type != "Shape":
                given = [self._tensor(name, values[name]) for name in node.input]
                results = OPERATORS[_key(node)](_Call(node, self.opset), *given)
            elif node.op_type == "Shape" and isinstance(given[0], Tensor):
                call = _Call(node, self.opset)
                results = np.array(given[0].shape, np.int64)[call.get("start", 0) : call.get("end")]
            else:
                results = _evaluated(node, given, self.opset)
            results = results if isinstance(results, tuple | list) else [results]
            values.update(zip(node.output, results))
        return {name: values[name] for name in self.outputs}

    def _tensor(self, name: str, value: Value) -> Value:
        """A parameter where it is one, so that layers keep their names."""
        return getattr(*self.held[name]) if name in self.held else value


def _placed(module: nn.Module, name: str, parameter: nn.Parameter) -> tuple[nn.Module, str]:
    """By the path that a parameter's name tells of, as in the module that was exported."""
    *path, last = name.replace("/", ".").split(".")
    for part in path:
        part = part or "_"
        child = module._modules.get(part)
        if child is None:
            part = f"{part}_" if hasattr(module, part) else part
            child = module._modules.setdefault(part, nn.Module())
        assert child is not None
        module = child
    own = f"{last}_" if not last or hasattr(module, last) else last
    module.register_parameter(own, parameter)
    return module, own


def _evaluated(node: NodeProto, given: Sequence[np.ndarray | None], opset: int) -> list[np.ndarray]:
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [node],
            "one",
            [
                onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), None)
                for name, value in dict(zip(node.input, given)).items()
                if name and value is not None
            ],
            [onnx.helper.make_empty_tensor_value_info(name) for name in node.output],
        ),
        opset_imports=[onnx.helper.make_opsetid("", opset)],
    )
    feeds = {name: value for name, value in zip(node.input, given) if name and value is not None}
    return list(ReferenceEvaluator(model).run(None, feeds))


class _Call:
    """A node's attributes, by name."""

    def __init__(self, node: NodeProto, opset: int):
        self.node, self.opset = node, opset
        self.attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}

    def get(self, name: str, default: Any = None) -> Any:
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def refuse(self, why: str) -> ModelError:
        return ModelError(f"{self.node.name or self.node.output[0]}: operator {self.node.op_type} {why}: not supported")


def _from_image(model: onnx.ModelProto) -> list[NodeProto]:
    """The nodes that depend on the image's values."""
    reached = {each.name for each in _given(model.graph)}
    found = []
    for node in model.graph.node:
        if node.op_type != "Shape" and reached & set(node.input):
            reached.update(node.output)
            found.append(node)
    return found


def _key(node: NodeProto) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


# --- operators --------------------------------------------------------------------------------------------------------


def _windows(call: _Call, x: Tensor, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Stride, dilation, padding before and after, and what auto_pad says as numbers."""
    rank = len(kernel)
    stride, dilation = (list(call.get(name) or [1] * rank) for name in ("strides", "dilations"))
    pads = list(call.get("pads") or [0] * 2 * rank)
    before, after = pads[:rank], pads[rank:]
    auto = call.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        for i, (size, k, s, d) in enumerate(zip(x.shape[2:], kernel, stride, dilation)):
            lack = max((ceil(size / s) - 1) * s + d * (k - 1) + 1 - size, 0)
            half, rest = lack // 2, lack - lack // 2
            before[i], after[i] = (half, rest) if auto == "SAME_UPPER" else (rest, half)
    return stride, dilation, before, after


def _conv(call: _Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    stride, dilation, before, after = _windows(call, x, weight.shape[2:])
    if before != after:
        x, before = F.pad(x, (before[1], after[1], before[0], after[0])), [0, 0]
    return F.conv2d(x, weight, bias, stride, before, dilation, call.get("group", 1))


def _conv_transpose(call: _Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    stride, dilation, before, after = _windows(call, x, weight.shape[2:])
    extra = list(call.get("output_padding") or [0, 0])
    if before != after or call.get("output_shape"):
        raise call.refuse("with uneven padding")
    return F.conv_transpose2d(x, weight, bias, stride, before, extra, call.get("group", 1), dilation)


def _pool_windows(call: _Call, x: Tensor) -> tuple[list[int], list[int], list[int], list[int], bool]:
    """Kernel, stride, padding, dilation, and whether the last window may lack pixels, which is what padding at the end
    alone says too."""
    kernel = list(call.get("kernel_shape"))
    stride, dilation, before, after = _windows(call, x, kernel)
    if before == after:
        return kernel, stride, before, dilation, bool(call.get("ceil_mode", 0))
    reach = [size - d * (k - 1) - 1 for size, k, d in zip(x.shape[2:], kernel, dilation)]
    alike = all((r + more) // s == ceil(r / s) for r, more, s in zip(reach, after, stride))
    if any(before) or not alike:
        raise call.refuse("with uneven padding")
    return kernel, stride, before, dilation, True


def _max_pool(call: _Call, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    kernel, stride, padding, dilation, ceiled = _pool_windows(call, x)
    indices = len(call.node.output) > 1 and bool(call.node.output[1])
    pool = F.max_pool2d_with_indices if indices else F.max_pool2d
    return pool(x, kernel, stride, padding, dilation, ceiled)  # type: ignore[no-any-return]


def _max_unpool(call: _Call, x: Tensor, places: Tensor, shape: Any = None) -> Tensor:
    size = None if shape is None else [int(each) for each in shape[2:]]
    return F.max_unpool2d(x, places, call.get("kernel_shape"), call.get("strides"), (0, 0), size)


def _avg_pool(call: _Call, x: Tensor) -> Tensor:
    kernel, stride, padding, _, ceiled = _pool_windows(call, x)
    return F.avg_pool2d(x, kernel, stride, padding, ceiled, bool(call.get("count_include_pad", 0)))


def _batch_norm(call: _Call, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    if call.get("training_mode", 0):
        raise call.refuse("in training mode")
    return F.batch_norm(x, mean, variance, scale, bias, eps=call.get("epsilon", 1e-5))


def _resize(call: _Call, x: Tensor, *given: Any) -> Tensor:
    scales = (
        call.get("scales") if call.opset < 9 else given[0] if call.opset < 11 else given[1] if len(given) > 1 else None
    )
    sizes = given[2] if call.opset >= 11 and len(given) > 2 and given[2] is not None and len(given[2]) else None
    axes = [axis % x.ndim for axis in call.get("axes") or range(x.ndim)]
    if sizes is None:
        given = scales if scales is not None else ()
        sizes = [int(np.floor(x.shape[axis] * float(s))) for axis, s in zip(axes, given)]
    by_axis = {**dict(enumerate(x.shape)), **{axis: int(each) for axis, each in zip(axes, sizes)}}
    sizes = [by_axis[axis] for axis in range(x.ndim)]
    if call.get("antialias", 0) or call.get("exclude_outside", 0):
        raise call.refuse("with antialias or exclude_outside")
    if list(sizes[:2]) != list(x.shape[:2]):
        raise call.refuse("of more than height and width")
    size = [int(each) for each in sizes[2:]]
    mode = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}[call.get("mode", "nearest")]
    places = call.get("coordinate_transformation_mode", "half_pixel" if call.opset >= 11 else "asymmetric")
    if mode == "nearest":
        whole = all(new % old == 0 for new, old in zip(size, x.shape[2:]))
        if not whole and (places, call.get("nearest_mode", "round_prefer_floor")) != ("asymmetric", "floor"):
            raise call.refuse(f"to the nearest by {places}, {call.get('nearest_mode', 'round_prefer_floor')}")
        return F.interpolate(x, size, mode=mode)
    if places not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise call.refuse(f"with coordinates {places}")
    if mode == "bicubic" and call.get("cubic_coeff_a", -0.75) != -0.75:
        raise call.refuse(f"with a cubic coefficient of {call.get('cubic_coeff_a')}")
    return F.interpolate(x, size, mode=mode, align_corners=places == "align_corners")


def _pad(call: _Call, x: Tensor, pads: Any = None, value: Any = None, axes: Any = None) -> Tensor:
    amounts = [int(each) for each in (call.get("pads") if pads is None else pads)]
    rank = len(amounts) // 2
    where = range(rank) if axes is None else [int(axis) % x.ndim for axis in axes]
    ends = [(0, 0)] * x.ndim
    for index, axis in enumerate(where):
        ends[axis] = amounts[index], amounts[index + rank]
    constant = call.get("value", 0.0) if value is None else float(np.asarray(value))
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[call.get("mode", "constant")]
    flat = [amount for pair in reversed(ends) for amount in pair]
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    return F.pad(x, flat, mode, constant) if mode == "constant" else F.pad(x, flat, mode)


def _reshape(call: _Call, x: Tensor, shape: Any = None) -> Tensor:
    wanted = [int(each) for each in (call.get("shape") if shape is None else shape)]
    return x.reshape([x.shape[i] if n == 0 and not call.get("allowzero", 0) else n for i, n in enumerate(wanted)])


def _axes(call: _Call, given: Any) -> list[int] | None:
    axes = call.get("axes") if given is None else given
    return None if axes is None else [int(axis) for axis in np.atleast_1d(axes)]


def _squeeze(call: _Call, x: Tensor, axes: Any = None) -> Tensor:
    where = _axes(call, axes)
    where = [i for i, n in enumerate(x.shape) if n == 1] if where is None else [axis % x.ndim for axis in where]
    return x.reshape([n for i, n in enumerate(x.shape) if i not in where])


def _unsqueeze(call: _Call, x: Tensor, axes: Any = None) -> Tensor:
    where = _axes(call, axes) or []
    for axis in sorted(axis % (x.ndim + len(where)) for axis in where):
        x = x.unsqueeze(axis)
    return x


def _slice(call: _Call, x: Tensor, *given: Any) -> Tensor:
    starts, ends = (call.get("starts"), call.get("ends")) if not given else given[:2]
    axes = call.get("axes") if not given else given[2] if len(given) > 2 else None
    steps = given[3] if len(given) > 3 else None
    for index, (start, end) in enumerate(zip(starts, ends)):
        axis, step = index if axes is None else int(axes[index]) % x.ndim, 1 if steps is None else int(steps[index])
        size = x.shape[axis]
        if step < 0:
            if (step, int(start)) != (-1, -1) or int(end) > -size:
                raise call.refuse("in steps backwards")
            x = x.flip(axis)
            continue
        first, last = (min(max(int(e) + size if e < 0 else int(e), 0), size) for e in (start, end))
        x = x[(slice(None),) * axis + (slice(first, last, step),)]
    return x


def _split(call: _Call, x: Tensor, sizes: Any = None) -> list[Tensor]:
    axis = call.get("axis", 0)
    given = call.get("split") if sizes is None else [int(each) for each in sizes]
    return list(x.split(given, axis)) if given else list(x.chunk(len(call.node.output), axis))


def _gather(call: _Call, x: Tensor, indices: Any) -> Tensor:
    axis = call.get("axis", 0) % x.ndim
    if not np.ndim(indices):
        return x.select(axis, int(indices))
    places = [int(each) % x.shape[axis] for each in np.ravel(indices)]
    if np.ndim(indices) > 1:
        raise call.refuse("of places in several dimensions")
    if places == list(range(places[0], places[0] + len(places))):
        return x.narrow(axis, places[0], len(places))
    return x[(slice(None),) * axis + (torch.tensor(places),)]


def _gemm(call: _Call, a: Tensor, b: Tensor, c: Any = None) -> Tensor:
    a = a.T if call.get("transA", 0) else a
    b = b if call.get("transB", 0) else b.T
    result = F.linear(a, b * call.get("alpha", 1.0) if call.get("alpha", 1.0) != 1 else b)
    return result if c is None else result + c * call.get("beta", 1.0)


def _clip(call: _Call, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    low, high = (
        call.get(name) if each is None else float(np.asarray(each)) for name, each in (("min", low), ("max", high))
    )
    return x.clamp(low, high)


def _reduced(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def one(call: _Call, x: Tensor, axes: Any = None) -> Tensor:
        where = _axes(call, axes)
        return function(x, list(range(x.ndim)) if where is None else where, keepdim=bool(call.get("keepdims", 1)))

    return one


def _two(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def one(call: _Call, a: Any, b: Any) -> Any:
        return function(_number(a), _number(b))

    return one


def _number(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.item() if value.size == 1 else torch.from_numpy(value.astype(np.float32))
    return value


def _group_norm(call: _Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Before opset 21, factors are of groups."""
    groups = call.get("num_groups")
    each = x.shape[1] // groups if call.opset < 21 else 1
    scale, bias = (part.repeat_interleave(each) if each > 1 else part for part in (scale, bias))
    return F.group_norm(x, groups, scale, bias, call.get("epsilon", 1e-5))


def _largest_of(call: _Call, a: Any, b: Any) -> Tensor:
    return _between(a, b, "min", torch.maximum)


def _least_of(call: _Call, a: Any, b: Any) -> Tensor:
    return _between(a, b, "max", torch.minimum)


def _between(a: Any, b: Any, limit: str, of_two: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """A limit, where one side is a number."""
    one, other = _number(a), _number(b)
    if isinstance(one, float):
        one, other = other, one
    return one.clamp(**{limit: other}) if isinstance(other, float) else of_two(one, other)


def _space_to_depth(call: _Call, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    r = call.get("blocksize")
    return x.reshape(n, c, h // r, r, w // r, r).permute(0, 3, 5, 1, 2, 4).reshape(n, c * r**2, h // r, w // r)


def _layer_norm(call: _Call, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    axis = call.get("axis", -1) % x.ndim
    return F.layer_norm(x, x.shape[axis:], scale, bias, call.get("epsilon", 1e-5))


def _softmax(call: _Call, x: Tensor) -> Tensor:
    axis = call.get("axis", 1 if call.opset < 13 else -1)
    if call.opset < 13 and axis % x.ndim != x.ndim - 1 and x.shape[axis + 1 :].numel() != 1:
        raise call.refuse("over several axes (opset below 13)")
    return torch.softmax(x, axis)


def _depth_to_space(call: _Call, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    r = call.get("blocksize")
    if call.get("mode", "DCR") == "CRD":
        return x.reshape(n, c // r**2, r, r, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // r**2, h * r, w * r)
    return x.reshape(n, r, r, c // r**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // r**2, h * r, w * r)


OPERATORS: Mapping[str, Callable[..., Any]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": lambda c, x, scale, bias: F.instance_norm(
        x, None, None, scale, bias, eps=c.get("epsilon", 1e-5)
    ),
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "MaxPool": _max_pool,
    "MaxUnpool": _max_unpool,
    "GlobalMaxPool": lambda c, x: x.amax((2, 3), keepdim=True),
    "AveragePool": _avg_pool,
    "GlobalAveragePool": lambda c, x: x.mean((2, 3), keepdim=True),
    "Resize": _resize,
    "Upsample": _resize,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Add": _two(lambda a, b: a + b),
    "Sub": _two(lambda a, b: a - b),
    "Mul": _two(lambda a, b: a * b),
    "Div": _two(lambda a, b: a / b),
    "Pow": _two(lambda a, b: a**b),
    "Neg": lambda c, x: -x,
    "Concat": lambda c, *x: torch.cat([_as_tensor(each) for each in x], c.get("axis", 1)),
    "Reshape": _reshape,
    "Flatten": lambda c, x: x.reshape(int(np.prod(x.shape[: c.get("axis", 1)])), -1),
    "Transpose": lambda c, x: x.permute(c.get("perm") or list(range(x.ndim))[::-1]),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": lambda c, x, shape: x.expand(np.broadcast_shapes(tuple(x.shape), tuple(map(int, shape)))),
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": lambda c, a, b: torch.matmul(_as_tensor(a), _as_tensor(b)),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "ReduceMax": _reduced(torch.amax),
    "Max": _largest_of,
    "Min": _least_of,
    "Sum": lambda c, *x: sum(map(_as_tensor, x[1:]), _as_tensor(x[0])),
    "Einsum": lambda c, *x: torch.einsum(c.get("equation"), *map(_as_tensor, x)),
    "Tile": lambda c, x, times: x.repeat([int(each) for each in times]),
    "Relu": lambda c, x: torch.relu(x),
    "LeakyRelu": lambda c, x: F.leaky_relu(x, c.get("alpha", 0.01)),
    "PRelu": lambda c, x, slope: F.prelu(x, slope.flatten()),
    "Elu": lambda c, x: F.elu(x, c.get("alpha", 1.0)),
    "Celu": lambda c, x: F.celu(x, c.get("alpha", 1.0)),
    "Selu": lambda c, x: c.get("gamma", 1.0507009873554805) * F.elu(x, c.get("alpha", 1.67326319217681884765625)),
    "Mish": lambda c, x: F.mish(x),
    "Softplus": lambda c, x: F.softplus(x),
    "Erf": lambda c, x: torch.erf(x),
    "Sqrt": lambda c, x: torch.sqrt(x),
    "Reciprocal": lambda c, x: 1 / x,
    "Exp": lambda c, x: torch.exp(x),
    "Log": lambda c, x: torch.log(x),
    "Abs": lambda c, x: torch.abs(x),
    "Gelu": lambda c, x: F.gelu(x, approximate=c.get("approximate", "none")),
    "Sigmoid": lambda c, x: torch.sigmoid(x),
    "Tanh": lambda c, x: torch.tanh(x),
    "Clip": _clip,
    "HardSwish": lambda c, x: F.hardswish(x),
    "HardSigmoid": lambda c, x: (x * c.get("alpha", 0.2) + c.get("beta", 0.5)).clamp(0, 1),
    "Softmax": _softmax,
    "ArgMax": lambda c, x: torch.argmax(x, c.get("axis", 0), bool(c.get("keepdims", 1))),
    "Greater": _two(lambda a, b: a > b),
    "GreaterOrEqual": _two(lambda a, b: a >= b),
    "Round": lambda c, x: torch.round(x),
    "Identity": lambda c, x: x,
    "Dropout": lambda c, x, *rest: x,
    "Cast": lambda c, x: x,
}


def _as_tensor(value: Any) -> Tensor:
    return torch.from_numpy(value.astype(np.float32)) if isinstance(value, np.ndarray) else value
