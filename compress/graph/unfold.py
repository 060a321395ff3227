"""A convolution as a product of matrices: its inputs at some positions, and its weights, by group of filters."""

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.graph.network import Node


class Taps:
    """The inputs that a convolution reads for given output positions. A transposed convolution is a plain one
    over the input with zeros between its pixels."""

    def __init__(self, node: Node, weight: Tensor):
        a, self.kernel = node.attrs, weight.shape[2:]
        self.dilation = a.dilation
        self.transposed = node.weights.transposed
        self.apart = a.stride if self.transposed else (1, 1)
        self.stride = (1, 1) if self.transposed else a.stride
        reach = [d * (k - 1) for d, k in zip(self.dilation, self.kernel)]
        extra = a.output_padding if self.transposed else (0, 0)
        after = [r - p + o for r, p, o in zip(reach, a.padding, extra)]
        before = [r - p for r, p in zip(reach, a.padding)]
        self.padding = (
            (before[1], after[1], before[0], after[0])
            if self.transposed
            else tuple(p for pad in reversed(a.padding) for p in (pad, pad))
        )

    def at(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """[N, C, H, W], n positions -> [N, C, kh * kw, n] float32."""
        if self.transposed:
            wide = x.new_zeros(*x.shape[:2], (x.shape[2] - 1) * self.apart[0] + 1, (x.shape[3] - 1) * self.apart[1] + 1)
            wide[:, :, :: self.apart[0], :: self.apart[1]] = x
            x = wide
        x = F.pad(x, self.padding)
        taps = [
            x[:, :, rows * self.stride[0] + i * self.dilation[0], columns * self.stride[1] + j * self.dilation[1]]
            for i in range(self.kernel[0])
            for j in range(self.kernel[1])
        ]
        return torch.stack(taps, 2).float()


def by_group(values: Tensor, groups: int) -> Tensor:
    """[N, C, n] -> [G, N * n, C / G]"""
    count, channels, positions = values.shape
    return values.reshape(count, groups, channels // groups, positions).permute(1, 0, 3, 2).flatten(1, 2)


def by_output(node: Node, weight: Tensor) -> Tensor:
    """Convolution weights -> [G, o, k, c], k being the positions of the kernel: the same memory where that is in the
    order of `torch.channels_last`."""
    groups = node.attrs.groups
    if node.weights.transposed:
        parts = weight.flip(2, 3).reshape(groups, -1, *weight.shape[1:]).transpose(1, 2)
    else:
        parts = weight.unflatten(0, (groups, -1))
    return parts.flatten(3).transpose(2, 3)


def from_output(node: Node, rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of `by_output`."""
    parts = rows.transpose(2, 3).unflatten(3, like.shape[2:])
    if node.weights.transposed:
        return parts.transpose(1, 2).flip(3, 4).reshape(like.shape)
    return parts.flatten(0, 1)


def as_matrix(node: Node, weight: Tensor) -> Tensor:
    """Convolution weights -> [G, f, o], for features in the order of `Taps`."""
    return by_output(node, weight).mT.flatten(2).mT


def from_matrix(node: Node, matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse of `as_matrix`."""
    return from_output(node, matrix.mT.unflatten(2, (-1, like.shape[2:].numel())).mT, like)
