"""What a module returns: its outputs by name, the one that is deployed, and the map that a decision was made of."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx

from compress.errors import ModelError
from compress.load.exported import operator_of

Key = int | str | None
"""Which output: by its place, by its name, or None for the first map."""

ADVICE = "name another with --output, or as output under [model] in the recipe"


@dataclass(frozen=True)
class Deployed:
    """An output, and the node that gives its map; where a module was only run, the map itself. `decision`: what was
    done to that and is taken off, in words; `threshold`: the value above which it was taken for the object, None for
    none."""

    name: str
    node: Any
    decision: str | None = None
    threshold: float | None = None


def named(value: Any) -> dict[str, Any]:
    """The values in a mapping, dataclass, tuple or list, by path ("logits", "aux.1"); one alone is "0"."""
    found = dict(_inside(value, ""))
    return found if _parts(value) is not None else {"0": value}


def _inside(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    parts = _parts(value)
    if parts is None:
        yield path, value
    for key, part in (parts or {}).items():
        yield from _inside(part, f"{path}.{key}" if path else str(key))


def _parts(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, Mapping):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value))
    return dict(enumerate(value)) if isinstance(value, tuple | list) else None


def known_to_torch(value: Any) -> bool:
    """Makes the dataclasses in what a module returned known to torch.export; whether there were any new ones."""
    new = False
    if (
        is_dataclass(value)
        and not isinstance(value, Mapping)
        and type(value) not in torch.utils._pytree.SUPPORTED_NODES
    ):
        torch.export.register_dataclass(type(value))
        new = True
    return any([new, *map(known_to_torch, (_parts(value) or {}).values())])


def deployed(outputs: Mapping[str, Any], key: Key) -> Deployed:
    """The one that `key` tells, of nodes of an exported program, or of tensors, by name. Raises ModelError, naming
    all."""
    if key is None:
        found = [one for one in map(_map_of, outputs, outputs.values()) if isinstance(one, Deployed)]
        first = next((one for one in found if one.decision is None), found[0] if found else None)
        if first is None:
            raise ModelError(f"the model gives no map [1, classes, H, W], but {listed(outputs)}")
        return first
    name = key if isinstance(key, str) else next(iter([*outputs][key : key + 1]), None)
    if name is None or name not in outputs:
        raise ModelError(f"output {key} does not exist: the model gives {listed(outputs)}; {ADVICE}")
    one = _map_of(name, outputs[name])
    if isinstance(one, str):
        raise ModelError(f"output {name} is no map{one}; the model gives {listed(outputs)}; {ADVICE}")
    return one


def listed(outputs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({_kind(value)})" for name, value in outputs.items())


def _kind(value: Any) -> str:
    return "x".join(map(str, _shape(value))) or "one number" if is_tensor(value) else _type(value)


def _type(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or isinstance(value, fx.Node) and isinstance(value.meta["val"], Tensor)


def _shape(value: fx.Node | Tensor) -> tuple[int, ...]:
    return tuple(value.shape if isinstance(value, Tensor) else value.meta["val"].shape)


def _map_of(name: str, value: Any) -> "Deployed | str":
    """Or why it is none."""
    if not is_tensor(value):
        return f" but {_type(value)}"
    made_of, decision, threshold = _before_decision(value)
    shape = _shape(made_of)
    if len(shape) != 4 or shape[0] != 1 or 0 in shape:
        return f": its shape is {'x'.join(map(str, _shape(value))) or 'empty'}"
    return Deployed(name, made_of, decision, threshold)


_KEEPS = (
    "to",
    "_to_copy",
    "squeeze",
    "unsqueeze",
    "clone",
    "alias",
    "view",
    "reshape",
    "contiguous",
    "detach",
    "type_as",
)
"""What changes no value of classes or yes and no."""


def _before_decision(node: fx.Node | Tensor) -> tuple[fx.Node | Tensor, str | None, float | None]:
    """The map whose likeliest class, or whose values above a threshold, a node tells; the node itself where it does
    not, and a tensor, of which nothing is known."""
    if isinstance(node, Tensor):
        return node, None, None
    last = node
    while operator_of(last) in _KEEPS:
        last = last.args[0]  # type: ignore[assignment]
    source, *more = [*last.args, None]
    if not isinstance(source, fx.Node):
        return node, None, None
    if operator_of(last) == "argmax" and _over_channels(source, more[0]):
        return source, "argmax", None
    if last.target is getitem and more[0] == 1 and operator_of(source) == "max" and len(source.args) > 1:
        scores = source.args[0]
        if isinstance(scores, fx.Node) and _over_channels(scores, source.args[1]):
            return scores, "argmax", None
    if operator_of(last) in ("gt", "ge") and isinstance(more[0], int | float):
        return source, f"threshold at {more[0]:g}", float(more[0])
    if operator_of(last) == "round":
        return source, "rounding", 0.5
    return node, None, None


def _over_channels(scores: fx.Node, dim: Any) -> bool:
    return len(_shape(scores)) == 4 and dim in (1, -3)
