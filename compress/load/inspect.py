"""What a model is, in text."""

from compress.graph.channels import find_groups
from compress.graph.network import Node
from compress.load.class_map import RESIZED
from compress.load.model import Trained

LARGEST = 15


def describe_model(trained: Trained) -> str:
    """Parameters, multiply-accumulates, outputs, the largest layers, and which channel groups can be pruned."""
    net = trained.network
    shapes, channels = net.shapes(), find_groups(net)
    macs = {node.name: net.weight(node.name)[0].numel() * _positions(node, shapes) for node in net.weighted()}
    sizes = {node.name: 4 * (net.weight(node.name).numel() + net.bias(node.name).numel()) for node in net.weighted()}
    height, width = net.traced_size
    lines = [
        f"{trained.path.name}: {trained.size_bytes:,} bytes, {trained.parameters:,} parameters",
        f"input: RGB {height}x{width}; {sum(macs.values()) / 1e9:.1f} G multiply-accumulates",
        f"outputs: {', '.join(f'{name} {_sides(shape)}' for name, shape in trained.outputs.items())}; "
        f"deployed: {trained.output}; {'labels' if trained.multilabel else 'classes'}: {', '.join(trained.classes)}",
        *([f"the map is resized to the image's {height}x{width}"] if RESIZED in net.by_name else []),
        f"operators: {len(net.nodes)}, of them {len(net.weighted())} convolutions",
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
    ]
    lines += [f"  not {group.name}: {group.frozen}" for group in channels.groups.values() if group.frozen]
    return "\n".join(lines)


def _sides(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _positions(node: Node, shapes: dict[str, tuple[int, int, int, int]]) -> int:
    """A convolution's filter is applied at every output pixel and channel, a transposed one's at every input's."""
    _, channels, height, width = shapes[node.inputs[0] if node.weights.transposed else node.name]
    return channels * height * width
