"""Layers that are several operators, or a convolution told otherwise: norms, PReLU, linear layers, resizing to the size
that there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compress.errors import ModelError
from compress.graph.operators.conv import CONV, CONV_TRANSPOSE, ConvAttributes, ConvTransposeAttributes
from compress.graph.operators.elementwise import ADD
from compress.graph.operators.norm import GROUP_NORM, INSTANCE_NORM, LAYER_NORM, GroupNormAttributes, NormAttributes
from compress.graph.operators.operator import Attributes, Operator, pair
from compress.graph.operators.unary import LEAKY_RELU, RELU, LeakyReluAttributes
from compress.load.axes import View, channel_order
from compress.load.calls.call import Called, Unsupported, Value, viewed
from compress.load.calls.dimensions import same

if TYPE_CHECKING:
    from compress.load.walk import Walk


def _by_channel(walk: Walk, value: Value) -> View:
    """A tensor whose second dimension is the channels in their order: that of a map may be in another before."""
    view = viewed(value)
    if len(view.dims) > 1 and view.dims[1] == view.whole("c"):
        return view
    if len(view.dims) != 4:
        raise Unsupported("of a dimension that is not the channels of a map")
    return walk.as_map(view)


def batch_norm(walk: Walk, call: Called) -> Value:
    if call["running_mean"] is None or call["training"]:
        layer = call.layer.removesuffix(f".{call.node.name}")
        raise ModelError(
            f"{layer}: batch normalisation without running statistics is not supported: it would take them from "
            "each image; train it with track_running_stats"
        )
    view = _by_channel(walk, call["input"])
    scale = 1 / torch.sqrt(call["running_var"] + call["eps"])
    scale = scale * call["weight"] if call["weight"] is not None else scale
    shift = -call["running_mean"] * scale
    return walk.scaled(view, scale, shift if call["bias"] is None else shift + call["bias"], call.layer)


def _normed(
    walk: Walk,
    call: Called,
    operator: Operator,
    attributes: NormAttributes,
    view: View,
    order: Sequence[int] = (),
) -> View:
    """A norm, and its factors and offsets: those of channels in this order, where it is not the map's."""
    result = view.on(walk.append(operator, [view.tensor], attributes, call.layer), view.shape)
    weight, bias = call["weight"], call["bias"]
    if weight is None and bias is None:
        return result
    channels = view.shape[0]
    scale = torch.ones(channels) if weight is None else weight.flatten()
    shift = torch.zeros(channels) if bias is None else bias.flatten()
    if len(scale) != channels:
        raise Unsupported("with a factor that varies over the map")
    if order:
        places = torch.tensor(order).argsort()
        scale, shift = scale[places], shift[places]
    return walk.scaled(result, scale, shift, f"{call.layer}.affine")


def instance_norm(walk: Walk, call: Called) -> Value:
    if not call["use_input_stats"]:
        raise Unsupported("with running statistics")
    view = walk.as_map(call["input"])
    return _normed(walk, call, INSTANCE_NORM, NormAttributes(float(call["eps"])), view)


def group_norm(walk: Walk, call: Called) -> Value:
    view = walk.as_map(call["input"])
    groups = call["num_groups"]
    if groups == view.shape[0]:
        return _normed(walk, call, INSTANCE_NORM, NormAttributes(float(call["eps"])), view)
    return _normed(walk, call, GROUP_NORM, GroupNormAttributes(float(call["eps"]), groups), view)


def layer_norm(walk: Walk, call: Called) -> Value:
    view = viewed(call["input"])
    order = channel_order(view.dims[-1])
    if len(call["normalized_shape"]) != 1 or sorted(order) != list(range(view.shape[0])):
        raise Unsupported("over more than the channels")
    return _normed(walk, call, LAYER_NORM, NormAttributes(float(call["eps"])), view, order)


def prelu(walk: Walk, call: Called) -> Value:
    """One slope is a leaky ReLU; one for each channel is max(0, x) - slope * max(0, -x)."""
    slopes = call["weight"].float()
    if slopes.numel() == 1:
        view = viewed(call["self"])
        attributes = LeakyReluAttributes(float(slopes))
        return view.on(walk.append(LEAKY_RELU, [view.tensor], attributes, call.layer), view.shape)
    view = _by_channel(walk, call["self"])
    nothing = torch.zeros_like(slopes)
    above = walk.append(RELU, [view.tensor], Attributes(), call.layer)
    turned = walk.affine(f"{call.layer}.turned", view.tensor, -torch.ones_like(slopes), nothing)
    below = walk.append(RELU, [turned], Attributes(), f"{call.layer}.below")
    sloped = walk.affine(f"{call.layer}.slope", below, -slopes, nothing)
    return view.on(walk.append(ADD, [above, sloped], Attributes(), f"{call.layer}.sum"), view.shape)


def linear(walk: Walk, call: Called) -> Value:
    weight = call["weight"]
    if not isinstance(weight, Tensor):
        raise Unsupported("with a weight that is no constant")
    return walk.linear(viewed(call["input"]), weight, call["bias"], walk.layer_of(call.node))


def convolution(walk: Walk, call: Called) -> Value:
    """As scripted and lowered modules say it, transposed or not."""
    source, weight = walk.map_of(viewed(call["input"])), call["weight"]
    if not isinstance(weight, Tensor) or weight.ndim != 4:
        raise Unsupported("with a weight that is no constant of two dimensions")
    stride, padding, dilation, extra = (pair(call[key]) for key in ("stride", "padding", "dilation", "output_padding"))
    operator, attributes = CONV, ConvAttributes(stride, dilation, call["groups"], padding)
    if call["transposed"]:
        operator, attributes = CONV_TRANSPOSE, ConvTransposeAttributes(stride, dilation, call["groups"], padding, extra)
    outputs = operator.weights.out_channels(weight.shape, call["groups"]) if operator.weights else 0
    bias = torch.zeros(outputs) if call["bias"] is None else call["bias"].float()
    name = walk.append(operator, [source], attributes, walk.layer_of(call.node), (weight.float(), bias))
    return View.of_map(name, call.shape)


def resized(walk: Walk, call: Called) -> Value:
    """To the size that there is: nothing."""
    view = viewed(same(walk, call))
    exact = all(factor == 1 for factor in call.arguments.get("scale_factors") or ())
    return view if exact and tuple(view.sizes) == call.shape else walk.become(call.node, call.name)


def padded(walk: Walk, call: Called) -> Value:
    """By nothing: nothing."""
    return same(walk, call) if not any(call["pad"]) else walk.become(call.node, call.name)
