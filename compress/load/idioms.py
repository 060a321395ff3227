"""Functions that people and exporters to ONNX write in pieces: found in an exported graph and called by their names."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from compress.load.exported import operator_of

aten = torch.ops.aten

CLOSE = 1e-3
"""Of a number to the one that is meant: what half precision rounds is less."""


def name_idioms(program: torch.export.ExportedProgram) -> None:
    """Rewrites the graph, in place, so that it computes the same by fewer calls."""
    graph = program.graph
    for node in list(graph.nodes):
        if node.op == "call_function" and node.users:
            found = next((made for idiom in IDIOMS if (made := idiom(node))), None)
            if found:
                node.replace_all_uses_with(found)
    graph.eliminate_dead_code()


def _called(node: Any, *names: str) -> bool:
    return isinstance(node, fx.Node) and operator_of(node) in names


def _new(before: Any, target: Any, *args: Any, **named: Any) -> Any:
    """A call in the place of another one, for what its layer and line are."""
    with before.graph.inserting_before(before):
        node = before.graph.call_function(target, args, named)
    node.meta = {key: value for key, value in before.meta.items() if key in ("nn_module_stack", "stack_trace")}
    node.meta["val"] = target(*fx.node.map_arg(args, lambda each: each.meta["val"]), **named)
    return node


def _factors(node: Any) -> tuple[list[Any], float]:
    """A product, as the tensors in it and the number that they are multiplied with."""
    if _called(node, "mul", "div"):
        left, right = node.args[:2]
        if _called(node, "mul") or isinstance(right, int | float):
            tensors, number = _factors(left)
            more, other = _factors(right) if _called(node, "mul") else ([], 1 / right)
            return [*tensors, *more], number * other
    return ([], float(node)) if isinstance(node, int | float) else ([node], 1.0)


def _plus(node: Any, number: float) -> Any:
    """What a number is added to; None where it is another, or nothing is."""
    if not _called(node, "add") or node.kwargs:
        return None
    left, right = node.args[:2]
    for one, other in ((left, right), (right, left)):
        if isinstance(other, int | float) and math.isclose(other, number, rel_tol=CLOSE):
            return one
    return None


def _gelu(node: Any) -> Any:
    """x / 2 * (1 + erf(x / sqrt 2)), or by tanh, its factors in any order."""
    tensors, number = _factors(node)
    if not _called(node, "mul", "div") or len(tensors) != 2 or not math.isclose(number, 0.5, rel_tol=CLOSE):
        return None
    for x, other in (tensors, tensors[::-1]):
        inside = _plus(other, 1)
        if _called(inside, "erf") and _is_times(inside.args[0], x, math.sqrt(0.5)):
            return _new(node, aten.gelu.default, x)
        if _called(inside, "tanh") and _is_tanh_of(inside.args[0], x):
            return _new(node, aten.gelu.default, x, approximate="tanh")
    return None


def _is_times(node: Any, x: Any, factor: float) -> bool:
    tensors, number = _factors(node)
    return tensors == [x] and math.isclose(number, factor, rel_tol=CLOSE)


def _is_tanh_of(node: Any, x: Any) -> bool:
    """sqrt(2 / pi) * (x + 0.044715 * x ** 3)"""
    tensors, number = _factors(node)
    if len(tensors) != 1 or not math.isclose(number, math.sqrt(2 / math.pi), rel_tol=CLOSE):
        return False
    (total,) = tensors
    if not _called(total, "add") or x not in total.args:
        return False
    cubes, share = _factors(total.args[1] if total.args[0] is x else total.args[0])
    cubed = len(cubes) == 1 and _called(cubes[0], "pow") and cubes[0].args[0] is x and cubes[0].args[1] == 3
    return (cubed or cubes == [x] * 3) and math.isclose(share, 0.044715, rel_tol=CLOSE)


def _mish(node: Any) -> Any:
    """x * tanh(softplus(x))"""
    if not _called(node, "mul"):
        return None
    for x, other in (node.args[:2], node.args[1::-1]):
        if _called(other, "tanh") and _called(other.args[0], "softplus") and other.args[0].args[0] is x:
            return _new(node, aten.mish.default, x)
    return None


def _standard(node: Any) -> Any:
    """(x - mean) / sqrt(variance + eps)"""
    if not _called(node, "div", "mul") or len(node.args) < 2:
        return None
    pairs = [node.args[:2]] if _called(node, "div") else [node.args[:2], node.args[1::-1]]
    for apart, root in pairs:
        under = _under_root(root, divided=_called(node, "div"))
        if under is not None and _called(apart, "sub") and not apart.kwargs:
            x, mean = apart.args[:2]
            dims, (variance, eps) = _mean_dims(mean), under
            if dims and mean.args[0] is x and dims == _variance_dims(variance, x, apart):
                return _norm(node, x, dims, eps)
    return None


def _under_root(node: Any, divided: bool) -> tuple[Any, float] | None:
    """A variance and what is added to it, under the root that values are divided by, or whose inverse they are
    multiplied with."""
    power = 0.5 if divided else -0.5
    if not (_called(node, "sqrt" if divided else "rsqrt") or (_called(node, "pow") and node.args[1] == power)):
        return None
    total = node.args[0]
    if not _called(total, "add") or total.kwargs:
        return None
    left, right = total.args[:2]
    variance, eps = (left, right) if isinstance(right, int | float) else (right, left)
    return (variance, float(eps)) if isinstance(eps, int | float) else None


def _mean_dims(node: Any) -> list[int] | None:
    """Of a mean that keeps its dimensions."""
    kept = _called(node, "mean") and len(node.args) > 1 and _given(node, 2, "keepdim")
    return _dims(node, node.args[1]) if kept else None


def _variance_dims(node: Any, x: Any, apart: Any) -> list[int] | None:
    """Of a variance of x that keeps its dimensions, over all values and not one less, or of a mean of the squares of
    what x is `apart` from its mean."""
    if _called(node, "mean") and _is_square(node.args[0], apart):
        return _mean_dims(node)
    if not _called(node, "var") or node.args[0] is not x:
        return None
    biased = node.kwargs.get("correction", 1) == 0 or node.args[2:3] == (False,)
    return _dims(node, node.args[1]) if biased and _given(node, 3, "keepdim") else None


def _given(node: Any, place: int, name: str) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name)


def _dims(node: Any, dims: Sequence[int]) -> list[int]:
    rank = node.meta["val"].ndim
    return sorted(dim % rank for dim in dims)


def _is_square(node: Any, of: Any) -> bool:
    if _called(node, "pow"):
        return node.args[0] is of and node.args[1] == 2
    return _called(node, "mul") and node.args[:2] == (of, of)


def _norm(node: Any, x: Any, dims: list[int], eps: float) -> Any:
    """Over dimensions `dims`, which are brought to the end and back."""
    shape = x.meta["val"].shape
    if dims == [2, 3]:
        return _new(node, aten.instance_norm.default, x, None, None, None, None, True, 0.1, eps, False)
    order = [dim for dim in range(len(shape)) if dim not in dims] + dims
    turned = x if order == sorted(order) else _new(node, aten.permute.default, x, order)
    norm = _new(node, aten.layer_norm.default, turned, [shape[dim] for dim in dims], None, None, eps)
    return norm if turned is x else _new(node, aten.permute.default, norm, [order.index(dim) for dim in sorted(order)])


def _einsum(node: Any) -> Any:
    """Of two tensors, as a product of matrices: each letter is of a batch, summed over, or of one of them alone."""
    if not _called(node, "einsum") or len(node.args[1]) != 2:
        return None
    given, arrow, result = node.args[0].replace(" ", "").partition("->")
    left, right = given.split(",")
    batch = [each for each in left if each in right and each in result]
    inner = [each for each in left if each in right and each not in result]
    ours, theirs = ([each for each in one if each in result and each not in batch] for one in (left, right))
    alone = len(ours) + len(theirs) + len(batch) != len(result) or any(len({*one}) != len(one) for one in (left, right))
    if not arrow or "." in given or alone or (len(inner), len(ours), len(theirs)) != (1, 1, 1):
        return None
    a = _in_order(node, node.args[1][0], left, [*batch, *ours, *inner])
    b = _in_order(node, node.args[1][1], right, [*batch, *inner, *theirs])
    return _in_order(node, _new(node, aten.matmul.default, a, b), [*batch, *ours, *theirs], list(result))


def _in_order(node: Any, x: Any, letters: Sequence[str], wanted: Sequence[str]) -> Any:
    order = [list(letters).index(each) for each in wanted]
    return x if order == sorted(order) else _new(node, aten.permute.default, x, order)


IDIOMS = (_gelu, _mish, _standard, _einsum)
