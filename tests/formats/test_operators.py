"""Every operator, in both files, against integers worked out in numpy and floats worked out by torch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from integer_reference import GraphBuilder, read, run_reference
from operator_cases import CASES, u_shape
from torch.nn import functional as F
from unary_cases import UNARY

from compress.formats.onnx import to_onnx
from compress.formats.tflite import to_tflite
from compress.runtime.session import open_model

EXPORTERS = {"onnx": to_onnx, "tflite": to_tflite}
SIZES = [(16, 16), (15, 17)]


def run_file(graph, image, folder, kind):
    """What the file computes from uint8 pixels [1, 3, H, W], NCHW: integers of the int8 range, or floats."""
    path = folder / f"model.{kind}"
    EXPORTERS[kind](graph, path)
    session = open_model(path, threads=1)
    if session.input.dtype == "float32":
        spec = graph.tensors[graph.input]
        image = (image.astype(np.float32) - (spec.zero_point + 128)) * np.float32(spec.scale)
    order = (0, 2, 3, 1) if session.input.layout == "NHWC" else (0, 1, 2, 3)
    result = session.run(np.ascontiguousarray(image.transpose(order)))
    result = result.transpose(0, 3, 1, 2) if session.input.layout == "NHWC" else result
    return result.astype(int) - 128 if session.output.dtype == "uint8" else result


def run_torch(graph, image):
    """What torch's functions compute from a float graph."""
    spec = graph.tensors[graph.input]
    values = {graph.input: (torch.from_numpy(image).float() - (spec.zero_point + 128)) * spec.scale}
    for op in graph.operators:
        x, a = [values[name] for name in op.inputs], op.attrs
        size = graph.tensors[op.output].shape[2:]
        weights = [None if w is None else torch.from_numpy(w) for w in (op.weight, op.bias)]
        if op.op == "conv":
            y = F.conv2d(x[0], *weights, a.stride, a.padding, a.dilation, a.groups)
        elif op.op == "conv_transpose":
            more = a.stride, a.padding, a.output_padding, a.groups, a.dilation
            y = F.conv_transpose2d(x[0], *weights, *more)
        elif op.op in ("max_pool", "avg_pool"):
            pool = F.max_pool2d if op.op == "max_pool" else F.avg_pool2d
            more = {} if op.op == "max_pool" else {"count_include_pad": a.counts_padding}
            both = (pool(x[0], a.kernel, a.stride, a.padding, ceil_mode=c, **more) for c in (False, True))
            y = next(result for result in both if result.shape[2:] == size)
        elif op.op in ("resize", "bicubic"):
            y = F.interpolate(x[0], size, mode=a.mode, align_corners=a.align_corners or None)
        elif op.op == "adaptive_pool":
            y = F.adaptive_avg_pool2d(x[0], a.bins)
        elif op.op == "group_norm":
            y = F.group_norm(x[0], a.groups, eps=a.eps)
        elif op.op == "instance_norm":
            y = F.instance_norm(x[0], eps=a.eps)
        elif op.op == "layer_norm":
            y = F.layer_norm(x[0].permute(0, 2, 3, 1), x[0].shape[1:2], eps=a.eps).permute(0, 3, 1, 2)
        elif op.op == "attention":
            apart = [each.transpose(1, 2).flatten(0, 1)[:, :, None] if a.rows else each for each in x]
            q, k, v = (each.flatten(2).mT.unflatten(2, (a.heads, -1)).transpose(1, 2) for each in apart)
            scores = q @ k.mT * a.scale + sum(torch.from_numpy(read(each)).float() for each in a.added)
            weights = {"keys": lambda s: s.softmax(-1), "nothing": lambda s: s,
                       "pairs": lambda s: s.flatten(2).softmax(-1).view(s.shape)}[a.over](scores)  # fmt: skip
            attended = (weights @ v).transpose(1, 2).flatten(2).mT
            y = attended.transpose(0, 1)[None].reshape(1, -1, *size) if a.rows else attended.unflatten(2, size)
        elif op.op in ("arrange", "arrange_pixels"):
            parts = x[0].reshape(*a.channels, *a.height, *a.width)
            y = parts.permute([index for one in a.order for index in one]).reshape(graph.tensors[op.output].shape)
        elif op.op == "roll":
            y = x[0].roll((a.down, a.right), (2, 3))
        elif op.op == "unpool":
            y = F.max_unpool2d(x[0], F.max_pool2d(x[1], 2, return_indices=True)[1], 2)
        elif op.op == "local_affine":
            factor, offset = (torch.from_numpy(read(text)).float() if text else None for text in (a.factor, a.offset))
            y = x[0] * (1 if factor is None else factor) + offset
        elif op.op == "pad":
            y = F.pad(x[0], (*a.width, *a.height))
        elif op.op in UNARY:
            (case,) = (case for case, attrs in UNARY[op.op].attrs.items() if attrs == vars(a))
            y = UNARY[op.op].modules[case](x[0].clone())
        else:
            y = {
                "add": lambda x: x[0] + x[1],
                "sub": lambda x: x[0] - x[1],
                "mul": lambda x: x[0] * x[1],
                "concat": lambda x: torch.cat(x, 1),
                "channel_max": lambda x: x[0].amax(1, keepdim=True),
                "mean": lambda x: x[0].mean((2, 3), keepdim=True),
                "relu": lambda x: torch.relu(x[0]),
                "relu6": lambda x: F.relu6(x[0]),
                "sigmoid": lambda x: torch.sigmoid(x[0]),
                "softmax": lambda x: torch.softmax(x[0], 1),
            }[op.op](x)
        values[op.output] = {None: lambda y: y, "relu": torch.relu, "relu6": F.relu6}[op.activation](y)
    return values[graph.output].numpy()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", EXPORTERS)
def test_integers_are_those_of_exact_arithmetic(kind, case, size, tmp_path):
    builder = GraphBuilder(size)
    CASES[case](builder)
    wanted = run_reference(builder.graph(), builder.image)
    error = np.abs(run_file(builder.graph(), builder.image, tmp_path, kind) - wanted)
    assert np.mean(error <= 1) >= 0.999
    assert error.max() <= 2
    assert np.unique(wanted).size > 3  # a constant result would agree with anything constant


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", [*EXPORTERS, "reference"])
def test_floats_are_those_of_torch(kind, case, size, tmp_path):
    builder = GraphBuilder(size, quantized=False)
    CASES[case](builder)
    graph = builder.graph()
    wanted = run_torch(graph, builder.image)
    if kind == "reference":
        result = run_reference(graph, builder.image)
    else:
        result = run_file(graph, builder.image, tmp_path, kind)
    assert result.shape == wanted.shape
    assert np.abs(result - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("activation", ["relu", "relu6"])
@pytest.mark.parametrize(("scale", "zero_point"), [(0.05, -128), (0.05, -20)])
@pytest.mark.parametrize("kind", EXPORTERS)
@pytest.mark.parametrize("op", ["conv", "conv_transpose"])
def test_an_activation_clamps_also_where_the_range_does_not(op, kind, scale, zero_point, activation, tmp_path):
    builder = GraphBuilder()
    builder.tensors["image"] = replace(builder.tensors["image"], scale=1 / 16)
    name = getattr(builder, op)("image", 8, activation=activation)
    builder.tensors[name] = replace(builder.tensors[name], scale=scale, zero_point=zero_point)
    graph = builder.graph()
    wanted = run_reference(graph, builder.image)
    ceiling = round(6 / scale) + zero_point if activation == "relu6" else 127
    assert (wanted.min(), wanted.max()) == (zero_point, min(ceiling, 127))
    assert np.abs(run_file(graph, builder.image, tmp_path, kind) - wanted).max() <= 1


@pytest.mark.parametrize("seed", range(4))
def test_both_files_of_a_u_shaped_graph_agree(seed, tmp_path):
    builder = GraphBuilder((24, 20), seed=seed)
    u_shape(builder)
    graph = builder.graph()
    wanted = run_reference(graph, builder.image)
    onnx, tflite = (run_file(graph, builder.image, tmp_path, kind) for kind in EXPORTERS)
    assert np.mean(np.abs(onnx - tflite)) < 1
    assert np.mean(np.abs(onnx - wanted)) < 1
    assert np.mean(np.abs(tflite - wanted)) < 1
    assert np.mean(onnx.argmax(1) == tflite.argmax(1)) > 0.99


@pytest.mark.parametrize("kind", EXPORTERS)
def test_layers_kept_float_stand_between_integer_ones(kind, tmp_path):
    builder = GraphBuilder()
    x = builder.conv("image", 8, activation="relu")
    x = builder.add("mul", (x, x), builder.tensors[x].shape, float_output=True)
    x = builder.conv(x, 8)
    x = builder.conv(x, 2)
    builder.add("sigmoid", (x,), builder.tensors[x].shape, float_output=True)
    graph = builder.graph()
    assert [graph.is_integer(op) for op in graph.operators] == [True, False, False, True, False]
    error = np.abs(run_file(graph, builder.image, tmp_path, kind) - run_reference(graph, builder.image))
    assert error.max() < 0.02
    assert np.mean(error) < 1e-3


@pytest.mark.parametrize("kind", EXPORTERS)
def test_a_tensor_with_a_scale_is_rounded_also_between_float_layers(kind, tmp_path):
    builder = GraphBuilder()
    x = builder.conv("image", 8)
    x = builder.add("relu", (x,), builder.tensors[x].shape, float_output=True)
    x = builder.join("mul", x, x)
    builder.tensors[x] = replace(builder.tensors[x], scale=0.5, zero_point=-128)
    builder.add("relu", (x,), builder.tensors[x].shape, float_output=True)
    result = run_file(builder.graph(), builder.image, tmp_path, kind)
    assert result.max() > 2
    np.testing.assert_array_equal(result, np.rint(result / 0.5) * 0.5)
