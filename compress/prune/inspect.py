"""What a model is, what of it can be cut and how far, in text."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from compress.errors import UnknownOperators, one_line
from compress.formats.artifact import named_channels
from compress.graph.network import Network, Node
from compress.load.class_map import RESIZED
from compress.load.model import Trained
from compress.prune.cost import predicted_bytes, weight_bytes
from compress.prune.widths import narrowest

LARGEST = 15


def describe_model(trained: Trained) -> str:
    """Parameters, multiply-accumulates, outputs, operators, the largest layers, which channel groups can be pruned,
    what the others hold, and the smallest budget."""
    net = trained.network
    shapes, channels = net.shapes(), trained.channels
    macs = {node.name: net.weight(node.name)[0].numel() * _positions(node, shapes) for node in net.weighted()}
    sizes = {node.name: _fp32_bytes(net, node) for node in net.weighted()}
    height, width = net.traced_size
    lines = [
        f"{trained.path.name}: {trained.size_bytes:,} bytes, {trained.parameters:,} parameters",
        f"input: {named_channels(net.image_channels)} {height}x{width}; "
        f"{sum(macs.values()) / 1e9:.1f} G multiply-accumulates",
        f"outputs: {', '.join(f'{name} {_sides(shape)}' for name, shape in trained.outputs.items())}; "
        f"deployed: {trained.output}; {'labels' if trained.multilabel else 'classes'}: {', '.join(trained.classes)}",
        *([f"the map is resized to the image's {height}x{width}"] if RESIZED in net.by_name else []),
        f"operators: {len(net.nodes)}: {_counted(Counter(node.op for node in net.nodes))}",
        "",
        "largest layers, fp32 bytes and millions of multiply-accumulates:",
    ]
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True)[:LARGEST]:
        lines.append(f"  {sizes[name]:>12,}  {macs[name] / 1e6:>8.1f}  {name}")
    rest = len(sizes) - LARGEST
    if rest > 0:
        lines.append(f"  {sum(sorted(sizes.values())[:rest]):>12,}            in {rest} smaller layers")
    prunable = channels.prunable()
    lines += [
        "",
        f"can be pruned: {'yes' if prunable else 'no'}, {len(prunable)} of {len(channels.groups)} channel groups",
        *_what_stays_whole(trained),
    ]
    return "\n".join(lines)


def _what_stays_whole(trained: Trained) -> list[str]:
    """Groups of layers by their bytes as fp32, and as int8 in the smallest student, whose bytes end it."""
    net, channels = trained.folded, trained.channels
    least, held = narrowest(channels), []
    for group in channels.groups.values():
        layers = [net.by_name[name] for name in group.producers if net.by_name[name].kind.weights]
        if group.frozen and layers:
            fp32 = sum(_fp32_bytes(net, node) for node in layers)
            int8 = sum(weight_bytes(net, channels, least, node) for node in layers)
            held.append((fp32, int8, one_line(f"{group.name}: {group.frozen}")))
    return [
        "what stays whole, fp32 bytes, and int8 bytes in the smallest student:",
        *(f"  {fp32:>12,}  {int8:>12,}  {what}" for fp32, int8, what in sorted(held, reverse=True)),
        f"smallest budget: about {predicted_bytes(net, channels, least):,} bytes; "
        f"as int8 alone, uncut: about {predicted_bytes(net, channels, channels.widths()):,}",
    ]


def describe_unknown(refused: UnknownOperators, path: Path) -> str:
    """What is known of a model that is refused, and all that is not."""
    return "\n".join(
        [
            f"{path.name}: operators that are known: {_counted(refused.known) or 'none'}",
            f"not known, {len(refused.unknown)}:",
            *(f"  {one_line(each)}" for each in refused.unknown),
            "replace each with what docs/operators.md names, in the model's code, and export or load it anew",
        ]
    )


def _counted(operators: Mapping[str, int]) -> str:
    """The most frequent first."""
    return ", ".join(f"{one_line(name)} {count}" for name, count in Counter(operators).most_common())


def _sides(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _fp32_bytes(net: Network, node: Node) -> int:
    return 4 * (net.weight(node.name).numel() + net.bias(node.name).numel())


def _positions(node: Node, shapes: dict[str, tuple[int, int, int, int]]) -> int:
    """A convolution's filter is applied at every output pixel and channel, a transposed one's at every input's."""
    _, channels, height, width = shapes[node.inputs[0] if node.weights.transposed else node.name]
    return channels * height * width
