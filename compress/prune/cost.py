"""What a network of given widths costs: the bytes of its file, and its latency by the work in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from compress.graph.channels import Channels, find_groups
from compress.graph.network import Network, Node, is_depthwise
from compress.graph.operators.operator import Work

WORK = (
    "multiply-accumulates of convolutions",
    "multiply-accumulates of 1x1 convolutions and attention",
    "multiply-accumulates of depthwise convolutions",
    "values that convolutions read and write",
    "values that resizing writes",
    "values that other operators read and write",
    "weights",
)
"""What is counted for each operator, in units of a million."""

MACS = 3
"""The first of them are multiply-accumulates."""

CHANNEL_BYTES = 13
"""Of each output channel of a convolution, measured on exported files: bias, scales and zero points."""

OPERATOR_BYTES = 260
"""Of each node, measured on exported files: tables, tensors, names and options."""


@dataclass(frozen=True)
class LatencyModel:
    """Milliseconds of one inference: `constant_ms`, and a price for every unit of WORK.

    `error` is the median relative error on students that were left out of the fit.
    """

    constant_ms: float
    prices_ms: tuple[float, ...]
    error: float

    def predict(self, work: np.ndarray) -> float:
        return self.constant_ms + float(work @ np.array(self.prices_ms))


def predicted_bytes(net: Network, channels: Channels, widths: Mapping[str, int]) -> int:
    """Bytes of the exported int8 file when the groups have these widths."""
    weights = sum(weight_bytes(net, channels, widths, node) for node in net.weighted())
    return OPERATOR_BYTES * len(net.nodes) + weights + sum(node.attrs.stored_bytes() for node in net.nodes)


def weight_bytes(net: Network, channels: Channels, widths: Mapping[str, int], node: Node) -> int:
    """Bytes of one operator's int8 weights, bias and scales."""
    weight = net.weight(node.name)
    inputs = channels.reads(node, weight, widths)
    return channels.width(node.name, widths) * (inputs * weight.shape[2] * weight.shape[3] + CHANNEL_BYTES)


class Workload:
    """The work in a network, counted for any widths of its groups."""

    def __init__(self, net: Network, channels: Channels):
        self.net, self.channels = net, channels
        self.pixels = {name: shape[2] * shape[3] for name, shape in net.shapes().items()}
        self.filters = {node.name: net.weight(node.name) for node in net.weighted()}

    def total(self, widths: Mapping[str, int]) -> np.ndarray:
        """Millions of each kind of WORK in the network, float64 [7]."""
        sums = np.zeros(len(WORK), float)
        for node in self.net.nodes:
            for kind, count in self.of(node, widths):
                sums[kind] += count
        return sums

    def macs(self, widths: Mapping[str, int]) -> float:
        """Multiply-accumulates of the network."""
        return 1e6 * float(self.total(widths)[:MACS].sum())

    def of(self, node: Node, widths: Mapping[str, int]) -> list[tuple[int, float]]:
        """Index into WORK and millions, for each kind of which one operator has any."""
        match node.kind.work:
            case Work.NOTHING:
                return []
            case Work.WRITING:
                return [(4, self._millions(node.name, widths))]
            case Work.MOVING:
                return [(5, self._moved(node, widths))]
            case Work.FILTERING:
                return self._filtering(node, widths)
            case Work.ATTENDING:
                return [(1, self._attending(node, widths)), (5, self._moved(node, widths))]
            case other:
                assert_never(other)

    def _filtering(self, node: Node, widths: Mapping[str, int]) -> list[tuple[int, float]]:
        weight = self.filters[node.name]
        depthwise, taps = is_depthwise(node, weight), weight.shape[2] * weight.shape[3]
        inputs = self.channels.reads(node, weight, widths)
        weights = inputs * taps * self.channels.width(node.name, widths) / 1e6
        # a transposed convolution multiplies every input, not every output, with its taps
        positions = self.pixels[node.inputs[0] if node.weights.transposed else node.name]
        macs = positions * weights
        return [(2 if depthwise else 1 if taps == 1 else 0, macs), (3, self._moved(node, widths)), (6, weights)]

    def _attending(self, node: Node, widths: Mapping[str, int]) -> float:
        """Millions of multiply-accumulates: each pixel's query with each key, and each pair's weight with the value."""
        query, _, value = node.inputs
        channels = self.channels.width(query, widths) + self.channels.width(value, widths)
        return float(self.pixels[query] * node.attrs.keys * channels / 1e6)

    def _moved(self, node: Node, widths: Mapping[str, int]) -> float:
        return self._millions(node.name, widths) + sum(self._millions(name, widths) for name in node.inputs)

    def _millions(self, tensor: str, widths: Mapping[str, int]) -> float:
        return self.pixels[tensor] * self.channels.width(tensor, widths) / 1e6


def macs_of(net: Network) -> int:
    """Multiply-accumulates of one inference."""
    channels = find_groups(net)
    return round(Workload(net, channels).macs(channels.widths()))


def fit_latency(work: Sequence[np.ndarray], measured_ms: Sequence[float]) -> LatencyModel:
    """The model that fits students with this `work` (float64 [7] each) and these median latencies.

    Least squares of the relative error with no price below zero (Lawson and Hanson 1974, chapter 23), since more
    work never takes less time; a kind of work that all students have alike goes into the constant.
    """
    rows, times = np.asarray(work, float), np.asarray(measured_ms, float)
    constant, prices = _solve(rows, times)
    errors = []
    for index in range(len(times)):
        others = np.arange(len(times)) != index
        without_constant, without = _solve(rows[others], times[others])
        errors.append(abs(without_constant + rows[index] @ without - times[index]) / times[index])
    return LatencyModel(constant, tuple(prices), float(np.median(errors)))


def _solve(rows: np.ndarray, times: np.ndarray) -> tuple[float, np.ndarray]:
    from scipy.optimize import nnls

    scale = np.maximum(rows.max(0), 1e-12)
    varies = np.ptp(rows, axis=0) > 1e-9 * scale
    columns = np.column_stack([np.ones(len(times)), np.where(varies, rows / scale, 0)])
    solution, _ = nnls(columns / times[:, None], np.ones(len(times)))
    return float(solution[0]), solution[1:] / scale
