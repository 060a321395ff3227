"""Where quantizers stand, and which tensors share a scale: the one table that training and both files obey."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import assert_never

from compress.errors import RecipeError
from compress.graph.network import Network, Node
from compress.graph.operators import OPERATORS
from compress.graph.operators.operator import Scale


@dataclass(frozen=True)
class Placement:
    """For each quantized tensor the group whose scale it has; the groups whose scale is fixed; and each fused
    rectifier by the operator that it is fused into.

    A rectifier that alone reads an operator that can have it inside is fused: the quantizer stands after the rectifier
    and none before it. What is joined has one scale; where that of an input is fixed and the others' is not the same,
    the input keeps its own, and its integers are brought to the joint scale where they are joined."""

    group_of: Mapping[str, str]
    fixed: Mapping[str, tuple[float, int]]
    fused: Mapping[str, Node]


def place(net: Network) -> Placement:
    """The placement for a network."""
    fused = {
        node.inputs[0]: node
        for node in net.nodes
        if node.kind.rectifier and net.readers[node.inputs[0]] == 1
        if net.by_name[node.inputs[0]].kind.fuses and node.inputs[0] != net.output
    }
    rectifiers = {node.name for node in fused.values()}
    group_of: dict[str, str] = {}
    fixed: dict[str, tuple[float, int]] = {}
    for node in net.nodes:
        if node.name in fused:
            continue
        group_of[node.name] = node.name
        match node.kind.scale:
            case _ if node.name in rectifiers:
                pass  # that of the operator which it is inside
            case Scale.OF_INPUTS:
                group_of[node.name] = _joint([group_of[name] for name in node.inputs], group_of, fixed, node)
            case Scale.IMAGE:
                fixed[node.name] = input_scale(node)
            case Scale.FIXED:
                assert node.kind.fixed
                fixed[node.name] = node.kind.fixed
            case Scale.OWN:
                pass
            case other:
                assert_never(other)
    return Placement(group_of, fixed, fused)


def check_keep_float(net: Network, names: Collection[str]) -> None:
    """Raises RecipeError for a layer that is not there, naming those that are called much the same, or has no weights
    that could be kept in float."""
    convs = [node.name for node in net.weighted()]
    for name in names:
        if name in convs:
            continue
        if name in net.by_name:
            raise RecipeError(
                f"keep_float: {name} is a {net.by_name[name].op}, which has no weights: its result is the same in "
                f"float; only {' and '.join(one.name for one in OPERATORS.values() if one.weights)} can be kept"
            )
        near = get_close_matches(name, convs, 3, 0.4) or convs[:3]
        raise RecipeError(f"keep_float: no layer {name!r}; did you mean {', '.join(near)}?")


def input_scale(node: Node) -> tuple[float, int]:
    """Scale and int8 zero point of the image."""
    return node.attrs.scale, node.attrs.zero_point - 128


def _joint(groups: list[str], group_of: dict[str, str], fixed: Mapping[str, tuple[float, int]], node: Node) -> str:
    """The group of what is joined from these: those that are not fixed become one; a fixed scale is that of the result
    only where all have it."""
    free = list(dict.fromkeys(group for group in groups if group not in fixed))
    if not free:
        return groups[0] if len({fixed[group] for group in groups}) == 1 else node.name
    for name, group in group_of.items():
        if group in free:
            group_of[name] = free[0]
    return free[0]
