"""Layers that are several operators, or a convolution told otherwise: norms, PReLU, linear layers, resizing to the size
that there is."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compress.errors import ModelError
from compress.graph.operators.conv import CONV, CONV_TRANSPOSE, ConvAttributes, ConvTransposeAttributes
from compress.graph.operators.elementwise import ADD
from compress.graph.operators.norm import GROUP_NORM, INSTANCE_NORM, LAYER_NORM, GroupNormAttributes, NormAttributes
from compress.graph.operators.operator import Attributes, Operator, pair
from compress.graph.operators.pool import UNPOOL, PoolAttributes, UnpoolAttributes
from compress.graph.operators.unary import LEAKY_RELU, RELU, LeakyReluAttributes
from compress.load.axes import View
from compress.load.calls.arithmetic import affine, over_map
from compress.load.calls.call import Called, Pooled, Unsupported, Value, same, viewed
from compress.load.calls.dimensions import padded_along

if TYPE_CHECKING:
    from compress.load.walk import Walk


def batch_norm(walk: Walk, call: Called) -> Value:
    if call["running_mean"] is None or call.arguments.get("training"):
        layer = call.layer.removesuffix(f".{call.node.name}")
        raise ModelError(
            f"{layer}: batch normalisation without running statistics is not supported: it would take them from "
            "each image; train it with track_running_stats"
        )
    view = walk.with_channels(viewed(call["input"]), 1)
    scale = 1 / torch.sqrt(call["running_var"] + call["eps"])
    scale = scale * call["weight"] if call["weight"] is not None else scale
    shift = -call["running_mean"] * scale
    return walk.scaled(view, scale, shift if call["bias"] is None else shift + call["bias"], call.layer)


def _normed(walk: Walk, call: Called, operator: Operator, attributes: NormAttributes, view: View) -> View:
    """A norm, and its factors and offsets, which are of the last dimensions or, of a norm by channel, of the second."""
    result = view.on(walk.append(operator, [view.tensor], attributes, call.layer), view.shape)
    weight, bias = call["weight"], call["bias"]
    if weight is None and bias is None:
        return result
    ends = () if "normalized_shape" in call.arguments else (1,) * (len(view.dims) - 2)
    scale = torch.ones(1) if weight is None else over_map(weight.reshape(*weight.shape, *ends), view)
    shift = torch.zeros(1) if bias is None else over_map(bias.reshape(*bias.shape, *ends), view)
    shape = torch.broadcast_shapes(scale.shape, shift.shape)
    return affine(walk, result, scale.expand(shape), shift.expand(shape), f"{call.layer}.affine")


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
    view, count = viewed(call["input"]), len(call["normalized_shape"])
    attributes = NormAttributes(float(call["eps"]))
    kept, over = view.sizes[:-count], [index for index in range(-count, 0) if view.sizes[index] > 1]
    if len(over) == 1:
        return _normed(walk, call, LAYER_NORM, attributes, walk.with_channels(view, len(kept) + count + over[0]))
    if prod(kept) > 1:
        raise Unsupported("over several dimensions but not all")
    return _normed(walk, call, GROUP_NORM, GroupNormAttributes(attributes.eps, 1), view)


def prelu(walk: Walk, call: Called) -> Value:
    """One slope is a leaky ReLU; one for each channel is max(0, x) - slope * max(0, -x)."""
    view, slopes = viewed(call["self"]), call["weight"].float()
    if slopes.numel() == 1:
        attributes = LeakyReluAttributes(float(slopes))
        return view.on(walk.append(LEAKY_RELU, [view.tensor], attributes, call.layer), view.shape)
    view = walk.with_channels(view, 1)
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
    view, weight = viewed(call["input"]), call["weight"]
    if isinstance(weight, Tensor) and weight.ndim == 3 and not call.arguments.get("transposed"):
        return _along_one(walk, call, view, weight)
    source = walk.map_of(view)
    if not isinstance(weight, Tensor) or weight.ndim != 4:
        raise Unsupported("with a weight that is no constant of two dimensions")
    stride, padding, dilation, extra = (pair(call[key]) for key in ("stride", "padding", "dilation", "output_padding"))
    operator, attributes = CONV, ConvAttributes(stride, dilation, call["groups"], padding)
    if call["transposed"]:
        operator, attributes = CONV_TRANSPOSE, ConvTransposeAttributes(stride, dilation, call["groups"], padding, extra)
    name = walk.append(operator, [source], attributes, walk.layer_of(call.node), (weight, call["bias"]))
    return View.of_map(name, call.shape)


def _along_one(walk: Walk, call: Called, view: View, weight: Tensor) -> View:
    """A convolution of [1, channels, positions]."""
    if isinstance(call["padding"], str):
        raise Unsupported(f"with padding {call['padding']!r}")
    source = walk.arranged(view, [1], [], [2])
    stride, padding, dilation = (int(call[key][0]) for key in ("stride", "padding", "dilation"))
    attributes = ConvAttributes((1, stride), (1, dilation), call["groups"], (0, padding))
    weights = weight[:, :, None], call["bias"]
    name = walk.append(CONV, [source.tensor], attributes, walk.layer_of(call.node), weights)
    result = View.of_map(name, (len(weight), 1, call.shape[2]))
    return result.with_dims([(), result.whole("c"), result.whole("w")])


def resized(walk: Walk, call: Called) -> Value:
    """To the size that there is: nothing."""
    view = viewed(same(walk, call))
    exact = all(factor == 1 for factor in call.arguments.get("scale_factors") or ())
    return view if exact and tuple(view.sizes) == call.shape else walk.become(call.node, call.name)


def padded(walk: Walk, call: Called) -> Value:
    """By nothing: nothing. Of what is no map: dimension by dimension."""
    value, amounts = same(walk, call), list(call["pad"])
    if not any(amounts):
        return value
    view = viewed(value)
    if len(view.dims) == 4 and view.is_map and not any(amounts[4:]):
        return walk.become(call.node, call.name)
    if call.arguments.get("mode", "constant") != "constant" or call["value"]:
        raise Unsupported("with anything but zeros")
    for place, both in enumerate(zip(amounts[::2], amounts[1::2])):
        if any(both):
            view = padded_along(walk, view, len(view.dims) - 1 - place, both, call.layer)
    return view


def pooled(walk: Walk, call: Called) -> Value:
    """The largest values, and where they were."""
    source = walk.as_map(call["self"])
    result = walk.become(call.node, "max_pool2d.default")
    return result, Pooled(source, walk.nodes[-1].attrs)


def unpooled(walk: Walk, call: Called) -> Value:
    """Values go to where those came from that were the largest of their windows."""
    view, places = walk.as_map(call["self"]), call["indices"]
    if not isinstance(places, Pooled):
        raise Unsupported("with places that are not those of a max pooling")
    kernel, before = places.pool.kernel, places.source
    side_by_side = places.pool == PoolAttributes(kernel, kernel, (0, 0), places.pool.ceil)
    if not side_by_side or any(size % n for size, n in zip(before.shape[1:], kernel)) or before.shape[0] == 0:
        raise Unsupported("of windows that overlap, or do not divide the map")
    if call.shape[1:] != before.shape:
        raise Unsupported(f"to {call.shape[2:]}, where the pooling read {before.shape[1:]}")
    name = walk.append(UNPOOL, [view.tensor, before.tensor], UnpoolAttributes(kernel), call.layer)
    return View.of_map(name, call.shape)


def shuffled(walk: Walk, call: Called) -> Value:
    """Channels by turns out of groups."""
    view = viewed(call["self"])
    _, channels, *rest = call.shape
    sizes = (1, call["groups"], channels // call["groups"], *rest)
    return _moved(view, sizes, (0, 2, 1, *range(3, len(rest) + 3)), call)


def pixels_shuffled(walk: Walk, call: Called) -> Value:
    """Channels become pixels, or pixels channels."""
    view, up = viewed(call["self"]), "upscale_factor" in call.arguments
    r = call["upscale_factor" if up else "downscale_factor"]
    (_, channels, height, width) = view.sizes
    sizes = (1, channels // r**2, r, r, height, width) if up else (1, channels, height // r, r, width // r, r)
    return _moved(view, sizes, (0, 1, 4, 2, 5, 3) if up else (0, 1, 3, 5, 2, 4), call)


def _moved(view: View, sizes: Sequence[int], order: Sequence[int], call: Called) -> Value:
    """Divided into dimensions of these sizes, which are joined in another order."""
    apart = view.reshaped(sizes)
    if apart is None:
        raise Unsupported(f"in parts of {tuple(sizes)}")
    return apart.permuted(order).reshaped(call.shape)


def nearest(walk: Walk, call: Called) -> Value:
    """Where each pixel becomes a whole number of pixels, both ways to place them are one."""
    view = viewed(call["input"])
    if any(new % old for new, old in zip(call.shape[2:], view.sizes[2:])):
        raise Unsupported("by a factor that is no whole number")
    return walk.become(call.node, "upsample_nearest2d.vec")
