"""What a QuantizedGraph computes, in numpy alone: exact integer sums, one rounding for each operator.

It knows nothing of torch, ONNX or TFLite. `GraphBuilder` makes small graphs with random weights, and takes
each tensor's scale from what a random image gives there.
"""

import base64
import io
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from unary_cases import UNARY

from compress.graph.operators import OPERATORS
from compress.graph.quantized import QuantizedGraph, QuantizedOperator, TensorSpec


def run_reference(graph: QuantizedGraph, image: np.ndarray) -> np.ndarray:
    """uint8 pixels [1, 3, H, W] -> the output: int64 of the int8 range where it has a scale, else float64."""
    return all_tensors(graph, image)[graph.output]


def all_tensors(graph: QuantizedGraph, image: np.ndarray) -> dict[str, np.ndarray]:
    spec = graph.tensors[graph.input]
    pixels = image.astype(np.int64) - 128
    values = {graph.input: (pixels - spec.zero_point) * np.float64(spec.scale) if graph.is_float else pixels}
    for operator in graph.operators:
        values[operator.output] = compute(operator, graph, values)
    return values


def compute(operator: QuantizedOperator, graph: QuantizedGraph, values: dict[str, np.ndarray]) -> np.ndarray:
    result = graph.tensors[operator.output]
    real = real_result(operator, graph, values)
    if result.scale is None or graph.is_float:
        return real
    return np.clip(np.rint(real / np.float32(result.scale)) + result.zero_point, -128, 127).astype(np.int64)


def real_result(operator: QuantizedOperator, graph: QuantizedGraph, values: dict[str, np.ndarray]) -> np.ndarray:
    specs = [graph.tensors[name] for name in operator.inputs]
    inputs = [values[name] for name in operator.inputs]
    if graph.is_integer(operator) and operator.weight is not None:
        sums = convolve(operator, inputs[0] - specs[0].zero_point, operator.weight.astype(np.int64))
        bias = 0 if operator.bias is None else operator.bias.astype(np.int64).reshape(1, -1, 1, 1)
        weight_scale = operator.weight_scale.astype(np.float64).reshape(1, -1, 1, 1)
        real = (sums + bias) * (np.float64(np.float32(specs[0].scale)) * weight_scale)
    else:
        reals = [dequantized(value, spec, graph) for value, spec in zip(inputs, specs, strict=True)]
        real = float_result(operator, reals, graph.tensors[operator.output].shape)
    if operator.activation:
        real = np.clip(real, 0, 6 if operator.activation == "relu6" else None)
    return real


def dequantized(value: np.ndarray, spec: TensorSpec, graph: QuantizedGraph) -> np.ndarray:
    if spec.scale is None or graph.is_float:
        return value
    return (value - spec.zero_point) * np.float64(np.float32(spec.scale))


def float_result(operator: QuantizedOperator, inputs: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    x = inputs[0]
    match operator.op:
        case "conv" | "conv_transpose":
            bias = 0 if operator.bias is None else operator.bias.astype(np.float64).reshape(1, -1, 1, 1)
            return convolve(operator, x, operator.weight.astype(np.float64)) + bias
        case "add":
            return x + inputs[1]
        case "sub":
            return x - inputs[1]
        case "instance_norm":
            return standard(x, (2, 3), operator.attrs.eps)
        case "group_norm":
            parts = x.reshape(1, operator.attrs.groups, -1)
            return standard(parts, (2,), operator.attrs.eps).reshape(x.shape)
        case "layer_norm":
            return standard(x, (1,), operator.attrs.eps)
        case "attention":
            return attention(*inputs, operator.attrs)
        case "arrange" | "arrange_pixels":
            return arranged(x, operator.attrs, shape)
        case "roll":
            return np.roll(x, (operator.attrs.down, operator.attrs.right), (2, 3))
        case "channel_max":
            return x.max(axis=1, keepdims=True)
        case "local_affine":
            factor, offset = (read(text) if text else None for text in (operator.attrs.factor, operator.attrs.offset))
            return x * (1 if factor is None else factor) + (0 if offset is None else offset)
        case "unpool":
            return unpooled(x, inputs[1], operator.attrs.kernel)
        case "mul":
            return x * inputs[1]
        case "concat":
            return np.concatenate(inputs, axis=1)
        case "max_pool":
            return windows(operator, x, shape, fill=-np.inf).max(axis=(-2, -1))
        case "avg_pool":
            fill = 0 if operator.attrs.counts_padding else np.nan
            return np.nanmean(windows(operator, x, shape, fill), axis=(-2, -1))
        case "adaptive_pool":
            return adaptive(x, operator.attrs.bins)
        case "pad":
            return padded(x, operator.attrs.height, operator.attrs.width)
        case "mean":
            return x.mean(axis=(2, 3), keepdims=True)
        case "resize" | "bicubic":
            return resize(x, shape[2:], operator.attrs.mode, operator.attrs.align_corners)
        case "relu":
            return np.maximum(x, 0)
        case "relu6":
            return np.clip(x, 0, 6)
        case "sigmoid":
            return 1 / (1 + np.exp(-x))
        case "softmax":
            powers = np.exp(x - x.max(axis=1, keepdims=True))
            return powers / powers.sum(axis=1, keepdims=True)
    return UNARY[operator.op].of(x, operator.attrs)


def padded(x: np.ndarray, height: tuple[int, int], width: tuple[int, int]) -> np.ndarray:
    """With zeros, or without what is cut off."""
    for axis, ends in ((2, height), (3, width)):
        before, after = ends
        kept = range(max(-before, 0), x.shape[axis] - max(-after, 0))
        x = np.take(x, kept, axis)
        x = np.pad(x, [(max(before, 0), max(after, 0)) if each == axis else (0, 0) for each in range(4)])
    return x


def convolve(operator: QuantizedOperator, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Without bias, in the dtype given; groups one after the other."""
    one = _transposed if operator.op == "conv_transpose" else _forward
    groups = operator.attrs.groups
    parts = zip(np.split(x, groups, axis=1), np.split(weight, groups, axis=0), strict=True)
    return np.concatenate([one(operator.attrs, part, kernel) for part, kernel in parts], axis=1)


def _forward(attrs: Any, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    (ph, pw), (dh, dw), (sh, sw) = attrs.padding, attrs.dilation, attrs.stride
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    reach = (dh * (weight.shape[2] - 1) + 1, dw * (weight.shape[3] - 1) + 1)
    seen = sliding_window_view(x, reach, axis=(2, 3))[:, :, ::sh, ::sw, ::dh, ::dw]
    return np.einsum("nihwyx,oiyx->nohw", seen, weight)


def _transposed(attrs: Any, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    (ph, pw), (dh, dw), (sh, sw) = attrs.padding, attrs.dilation, attrs.stride
    oh, ow = attrs.output_padding
    _, _, height, width = x.shape
    kh, kw = weight.shape[2:]
    full = np.zeros((1, weight.shape[1], (height - 1) * sh + dh * (kh - 1) + 1 + oh,
                     (width - 1) * sw + dw * (kw - 1) + 1 + ow), x.dtype)  # fmt: skip
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dh, i * dh + (height - 1) * sh + 1, sh)
            columns = slice(j * dw, j * dw + (width - 1) * sw + 1, sw)
            full[:, :, rows, columns] += np.einsum("nihw,io->nohw", x, weight[:, :, i, j])
    return full[:, :, ph : full.shape[2] - ph, pw : full.shape[3] - pw]


def windows(operator: QuantizedOperator, x: np.ndarray, shape: tuple[int, ...], fill: float) -> np.ndarray:
    """[1, C, H, W, kh, kw] windows of a pool whose output has `shape`; `fill` outside the image."""
    kernel, stride, begin = operator.attrs.kernel, operator.attrs.stride, operator.attrs.padding
    covered = [(out - 1) * s + k for out, s, k in zip(shape[2:], stride, kernel, strict=True)]
    end = [max(c - size - b, 0) for c, size, b in zip(covered, x.shape[2:], begin, strict=True)]
    padded = np.pad(x.astype(float), ((0, 0), (0, 0), (begin[0], end[0]), (begin[1], end[1])), constant_values=fill)
    seen = sliding_window_view(padded, kernel, axis=(2, 3))[:, :, :: stride[0], :: stride[1]]
    return seen[:, :, : shape[2], : shape[3]]


def standard(x: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def attention(query: np.ndarray, key: np.ndarray, value: np.ndarray, attrs: Any) -> np.ndarray:
    """Row by row, where rows attend for themselves, and head by head: softmax of query . key, times value."""
    if attrs.rows:
        alone = replace(attrs, rows=False, added=())
        rows = []
        for row in range(query.shape[2]):
            added = [each if len(each) == 1 else each[row : row + 1] for each in map(read, attrs.added)]
            one = [each[:, :, row : row + 1] for each in (query, key, value)]
            rows.append(_attention(*one, alone, added))
        return np.concatenate(rows, axis=2)
    return _attention(query, key, value, attrs, [read(each) for each in attrs.added])


def _attention(query: np.ndarray, key: np.ndarray, value: np.ndarray, attrs: Any, added: list) -> np.ndarray:
    parts, (_, _, *size) = [], query.shape
    for head, (q, k, v) in enumerate(zip(*(np.split(each[0], attrs.heads) for each in (query, key, value)))):
        scores = np.einsum("cq,ck->qk", q.reshape(len(q), -1), k.reshape(len(k), -1)) * attrs.scale
        for each in added:
            scores = scores + each[0, head if each.shape[1] > 1 else 0]
        powers = np.exp(scores - scores.max())
        total = {"keys": powers.sum(-1, keepdims=True), "pairs": powers.sum(), "nothing": None}[attrs.over]
        weights = scores if total is None else powers / total
        parts.append((v.reshape(len(v), -1) @ weights.T).reshape(-1, *size))
    return np.concatenate(parts)[None]


def arranged(x: np.ndarray, attrs: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Value by value: from the digits of each place, in the parts that it runs through, to where it was."""
    parts = [*attrs.channels, *attrs.height, *attrs.width]
    result, digits = np.empty(shape), {}
    for axis, (run, places) in enumerate(zip(attrs.order, np.indices(shape[1:]))):
        for index in reversed(run):
            digits[index], places = places % parts[index], places // parts[index]
        assert not places.any(), axis
    where, first = [], 0
    for own in (attrs.channels, attrs.height, attrs.width):
        place = 0
        for index in range(first, first + len(own)):
            place = place * parts[index] + digits[index]
        where.append(np.broadcast_to(place, shape[1:]))
        first += len(own)
    result[0] = x[0][tuple(where)]
    return result


def unpooled(x: np.ndarray, before: np.ndarray, kernel: tuple[int, int]) -> np.ndarray:
    """Window by window: the value goes to where the first of the largest was."""
    result = np.zeros(before.shape)
    for _, c, i, j in np.ndindex(x.shape):
        rows, columns = (slice(k * n, (k + 1) * n) for k, n in zip((i, j), kernel))
        window = before[0, c, rows, columns]
        place = np.unravel_index(window.argmax(), window.shape)
        result[0, c, rows, columns][place] = x[0, c, i, j]
    return result


def stored(values: np.ndarray) -> str:
    """As a network keeps an array among its attributes: an .npy file in base64."""
    stream = io.BytesIO()
    np.save(stream, values.astype(np.float32))
    return base64.b64encode(stream.getvalue()).decode()


def read(text: str) -> np.ndarray:
    return np.load(io.BytesIO(base64.b64decode(text))).astype(np.float64)


def adaptive(x: np.ndarray, bins: tuple[int, int]) -> np.ndarray:
    """The mean of each bin, one after the other."""
    result = np.empty((*x.shape[:2], *bins))
    for i, j in np.ndindex(bins):
        rows, columns = (
            slice(int(np.floor(k * size / n)), int(np.ceil((k + 1) * size / n)))
            for k, n, size in zip((i, j), bins, x.shape[2:], strict=True)
        )
        result[:, :, i, j] = x[:, :, rows, columns].mean(axis=(2, 3))
    return result


def resize(x: np.ndarray, size: tuple[int, ...], mode: str, align_corners: bool = False) -> np.ndarray:
    if mode == "nearest":
        rows, columns = (np.arange(new) * old // new for new, old in zip(size, x.shape[2:], strict=True))
        return x[:, :, rows][:, :, :, columns]
    taps = {"bilinear": _hat, "bicubic": _keys}[mode]
    for axis, new in zip((2, 3), size, strict=True):
        old = x.shape[axis]
        place = (
            np.arange(new) * (old - 1) / max(new - 1, 1) if align_corners else (np.arange(new) + 0.5) * old / new - 0.5
        )
        total = 0.0
        for step in range(-1, 3):
            near = np.floor(place).astype(int) + step
            share = taps(place - near).reshape((-1, 1) if axis == 2 else (-1,))
            total = total + np.take(x, np.clip(near, 0, old - 1), axis) * share
        x = total
    return x


def _hat(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(distance), 0)


def _keys(distance: np.ndarray) -> np.ndarray:
    """The cubic of Keys 1981, a = -0.75: (a+2)|d|^3 - (a+3)|d|^2 + 1, then a|d|^3 - 5a|d|^2 + 8a|d| - 4a."""
    d = np.abs(distance)
    return np.where(d <= 1, 1.25 * d**3 - 2.25 * d**2 + 1, np.where(d < 2, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4), 0))


def pooled(size: int, kernel: int, stride: int, padding: int, ceil: bool = False) -> int:
    """torch's output size: with `ceil`, no window may start beyond the image and its left padding."""
    steps = size + 2 * padding - kernel
    out = (-(-steps // stride) if ceil else steps // stride) + 1
    return out - 1 if ceil and (out - 1) * stride >= size + padding else out


@dataclass
class GraphBuilder:
    """Builds a graph operator by operator; each method returns the name of the new tensor."""

    size: tuple[int, int] = (16, 16)
    quantized: bool = True
    seed: int = 0
    tensors: dict[str, TensorSpec] = field(default_factory=dict)
    operators: list[QuantizedOperator] = field(default_factory=list)

    def __post_init__(self):
        self.random = np.random.default_rng(self.seed)
        self.image = self.random.integers(0, 256, (1, 3, *self.size), dtype=np.uint8)
        self.tensors["image"] = TensorSpec("image", (1, 3, *self.size), float(np.float32(1 / 64)), -10)
        self.values: dict[str, np.ndarray] = {}

    def graph(self, output: str = "") -> QuantizedGraph:
        last = output or self.operators[-1].output
        return QuantizedGraph("sample", self.tensors, tuple(self.operators), "image", last)

    def add(self, op: str, inputs: tuple[str, ...], shape: tuple[int, ...], *, float_output: bool = False, **more):
        """`more`: fields of QuantizedOperator. The new tensor's scale covers what the random image gives, unless `op`
        prescribes it."""
        name = f"{op}{len(self.operators)}"
        attrs = OPERATORS[op].attributes(**more.pop("attrs", {}))
        operator = QuantizedOperator(op, name, inputs, name, attrs, **more)
        graph = QuantizedGraph("sample", {**self.tensors, name: TensorSpec(name, shape, 1.0)}, (), "image", name)
        values = self.values or {"image": self.image.astype(np.int64) - 128}
        if self.quantized and not float_output:
            spec = TensorSpec(name, shape, *self.range_of(operator, graph, values))
        else:
            spec = TensorSpec(name, shape)
        self.tensors[name] = spec
        self.operators.append(operator)
        if self.quantized:
            graph = QuantizedGraph("sample", {**self.tensors, "quantized": TensorSpec("", shape, 1.0)}, (), "image", "")
            self.values = {**values, name: compute(operator, graph, values)}
        return name

    def range_of(self, operator: QuantizedOperator, graph: QuantizedGraph, values) -> tuple[float, int]:
        if operator.op in ("sigmoid", "softmax"):
            return 1 / 256, -128
        unary = UNARY.get(operator.op)
        if unary and unary.fixed:
            return unary.fixed
        source = self.tensors[operator.inputs[0]]
        sharing = (
            "arrange",
            "arrange_pixels",
            "roll",
            "channel_max",
            "max_pool",
            "avg_pool",
            "adaptive_pool",
            "pad",
            "resize",
            "concat",
            "relu",
            "relu6",
        )
        shares = operator.op in sharing
        if shares or (unary and unary.inputs_scale):
            return source.scale, source.zero_point
        real = real_result(operator, graph, values)
        low, high = min(real.min(), 0.0), max(real.max(), 1e-3)
        scale = float(np.float32((high - low) / 255))
        return scale, int(np.rint(-low / scale)) - 128

    def conv(self, x: str, channels: int, kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1,
             activation=None, like: str = "", **more):  # fmt: skip
        """`like`: a tensor whose scale the result shares."""
        source = self.tensors[x].shape
        size = [(n + 2 * p - d * (k - 1) - 1) // s + 1
                for n, k, s, p, d in zip(source[2:], kernel, stride, padding, dilation, strict=True)]  # fmt: skip
        attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        weights = self.weights(x, (channels, source[1] // groups, *kernel), channels)
        name = self.add("conv", (x,), (1, channels, *size), attrs=attrs, activation=activation, **weights, **more)
        return self.share_scale(name, like) if like else name

    def conv_transpose(self, x: str, channels: int, kernel=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1),
                       output_padding=(0, 0), groups=1, activation=None):  # fmt: skip
        source = self.tensors[x].shape
        size = [(n - 1) * s - 2 * p + d * (k - 1) + o + 1
                for n, k, s, p, d, o in zip(source[2:], kernel, stride, padding, dilation, output_padding,
                                            strict=True)]  # fmt: skip
        attrs = {"stride": stride, "padding": padding, "dilation": dilation, "output_padding": output_padding,
                 "groups": groups}  # fmt: skip
        weights = self.weights(x, (source[1], channels // groups, *kernel), channels)
        return self.add("conv_transpose", (x,), (1, channels, *size), attrs=attrs, activation=activation, **weights)

    def weights(self, x: str, shape: tuple[int, ...], channels: int) -> dict[str, np.ndarray]:
        spread = 1 / np.sqrt(np.prod(shape) / channels)
        if not self.quantized or self.tensors[x].scale is None:
            weight = self.random.normal(0, spread, shape).astype(np.float32)
            return {"weight": weight, "bias": self.random.normal(0, 0.1, channels).astype(np.float32)}
        weight_scale = self.random.uniform(0.5, 1.5, channels).astype(np.float32) * np.float32(3 * spread / 127)
        bias = self.random.normal(0, 0.1, channels) / (self.tensors[x].scale * weight_scale)
        return {
            "weight": self.random.integers(-127, 128, shape).astype(np.int8),
            "weight_scale": weight_scale,
            "bias": np.rint(bias).astype(np.int32),
        }

    def share_scale(self, name: str, like: str) -> str:
        """Give the newest tensor the scale of another, as the inputs of a concat have it."""
        other, spec = self.tensors[like], self.tensors[name]
        self.tensors[name] = TensorSpec(name, spec.shape, other.scale, other.zero_point)
        if self.quantized:
            self.values[name] = compute(self.operators[-1], self.graph(), self.values)
        return name

    def pool(self, op: str, x: str, kernel=(2, 2), stride=(2, 2), padding=(0, 0), ceil=False, **more) -> str:
        source = self.tensors[x].shape
        size = [pooled(n, k, s, p, ceil) for n, k, s, p in zip(source[2:], kernel, stride, padding, strict=True)]
        attrs = {"kernel": kernel, "stride": stride, "padding": padding, "ceil": ceil, **more}
        return self.add(op, (x,), (1, source[1], *size), attrs=attrs)

    def resize(self, x: str, size: tuple[int, int], mode: str = "bilinear", align_corners: bool = False) -> str:
        op, attrs = "bicubic" if mode == "bicubic" else "resize", {"mode": mode, "size": size}
        return self.add(op, (x,), (1, self.tensors[x].shape[1], *size), attrs={**attrs, "align_corners": align_corners})

    def bins(self, x: str, bins: tuple[int, int]) -> str:
        return self.add("adaptive_pool", (x,), (1, self.tensors[x].shape[1], *bins), attrs={"bins": bins})

    def attention(self, query: str, key: str, value: str, heads: int, rows=False, over="keys", added=()) -> str:
        """`added`: shapes of random constants."""
        (_, _, *size), (_, channels, *_) = self.tensors[query].shape, self.tensors[value].shape
        keys = self.tensors[key].shape[3] if rows else int(np.prod(self.tensors[key].shape[2:]))
        constants = tuple(stored(self.random.normal(0, 0.5, shape)) for shape in added)
        scale = 0.75 if over != "nothing" else 1 / keys
        attrs = {"heads": heads, "scale": scale, "keys": keys, "rows": rows, "over": over, "added": constants}
        return self.add("attention", (query, key, value), (1, channels, *size), attrs=attrs)

    def arrange(self, x: str, channels, height, width, order, op="arrange") -> str:
        parts = [*channels, *height, *width]
        shape = [int(np.prod([parts[index] for index in one])) for one in order]
        attrs = {"channels": channels, "height": height, "width": width, "order": order}
        return self.add(op, (x,), (1, *shape), attrs=attrs)

    def unpool(self, x: str, before: str) -> str:
        return self.add("unpool", (x, before), self.tensors[before].shape, attrs={"kernel": (2, 2)})

    def local(self, x: str, factor=(), offset=()) -> str:
        """Shapes of random constants."""
        given = {"factor": factor, "offset": offset}
        attrs = {name: stored(self.random.normal(0, 1, shape)) if shape else "" for name, shape in given.items()}
        return self.add("local_affine", (x,), self.tensors[x].shape, attrs=attrs)

    def pad(self, x: str, height: tuple[int, int], width: tuple[int, int]) -> str:
        _, channels, *size = self.tensors[x].shape
        more = [n + sum(ends) for n, ends in zip(size, (height, width), strict=True)]
        return self.add("pad", (x,), (1, channels, *more), attrs={"height": height, "width": width})

    def join(self, op: str, *inputs: str, activation=None, **more) -> str:
        shapes = [self.tensors[name].shape for name in inputs]
        channels = sum(shape[1] for shape in shapes) if op == "concat" else shapes[0][1]
        size = max(shape[2:] for shape in shapes)
        return self.add(op, inputs, (1, channels, *size), activation=activation, **more)

    def one(self, op: str, x: str, **more) -> str:
        """relu, relu6, sigmoid, softmax, mean, and those of `unary_cases`."""
        shape = self.tensors[x].shape
        made = {"mean": (1, shape[1], 1, 1), "channel_max": (1, 1, *shape[2:])}
        return self.add(op, (x,), made.get(op, shape), **more)
