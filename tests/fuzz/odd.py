"""Values that nobody means, and trees in which one value is replaced by one of them."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

DEEP: Any = []
for _ in range(500):
    DEEP = [DEEP]

ODD: list[Any] = [
    float("nan"),
    float("inf"),
    float("-inf"),
    1e308,
    -1,
    0,
    1,
    0.5,
    2**31,
    2**63 - 1,
    2**63,
    2**64,
    10**400,
    "",
    " ",
    "0.99",
    "nan",
    "x" * 10_000,
    "\ud800",
    "\u202e\u0000\x1b[2J",
    "a\nb",
    "<script>alert(1)</script>",
    "../../elsewhere",
    "/dev/zero",
    "/etc/passwd",
    "{}",
    True,
    False,
    None,
    [],
    {},
    [None],
    [[]],
    [1, 1],
    {"": 1},
    DEEP,
]


@dataclass(frozen=True)
class Place:
    """One value in a tree: where it is, and how it is changed there. `kind` is the path without numbers, so that a list
    of a thousand numbers does not count a thousand times."""

    path: str
    kind: str
    value: Any
    set: Callable[[Any], object]
    drop: Callable[[], object] | None = None


def places(value: Any, path: str = "", kind: str = "") -> Iterator[Place]:
    """Every value in dictionaries, lists and plain objects, one after the other; the root is none of them."""
    for key, child, put, drop in _children(value):
        here, same = f"{path}.{key}", f"{kind}.{'*' if isinstance(key, int) else key}"
        yield Place(here, same, child, put, drop)
        yield from places(child, here, same)


def _children(value: Any) -> Iterator[tuple[Any, Any, Callable[[Any], object], Callable[[], object] | None]]:
    if isinstance(value, dict):
        for key in list(value):
            yield key, value[key], _putter(value, key), _dropper(value, key)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield index, child, _putter(value, index), _dropper(value, index)
    elif hasattr(value, "__dict__") and type(value).__module__.endswith("schema_py_generated"):
        for key, child in list(vars(value).items()):
            yield key, child, lambda new, key=key: setattr(value, key, new), None


def _putter(holder: Any, key: Any) -> Callable[[Any], object]:
    return lambda new: holder.__setitem__(key, new)


def _dropper(holder: Any, key: Any) -> Callable[[], object]:
    return lambda: holder.__delitem__(key)


def chosen(rng: random.Random, found: list[Place]) -> Place:
    """One of them, each kind being as likely as any other."""
    kind = rng.choice(sorted({place.kind for place in found}))
    return rng.choice([place for place in found if place.kind == kind])


def shown(value: Any) -> str:
    text = ascii(value) if value is not DEEP else "[[[...]]]"
    return text if len(text) < 60 else text[:57] + "..."


def change(rng: random.Random, tree: Any, odd: list[Any] = ODD, only: str = "") -> str:
    """Changes one value in a tree of dictionaries and lists in place -> what was changed. `only`: below this key."""
    place = chosen(rng, [each for each in places(tree) if each.path.startswith(only)])
    how = rng.random()
    if how < 0.15 and place.drop:
        place.drop()
        return f"{place.path} is left out"
    if how < 0.2 and isinstance(place.value, dict):
        key, value = rng.choice(["unknown", "", "\ud800", "__class__"]), rng.choice(odd)
        place.value[key] = value
        return f"{place.path} has {shown(key)} = {shown(value)} besides"
    if how < 0.3 and isinstance(place.value, list):
        place.set(place.value * 2)
        return f"{place.path} is there twice"
    if how < 0.4 and isinstance(place.value, int | float) and not isinstance(place.value, bool):
        value = rng.choice([-place.value, place.value * 1000, place.value + 1, float(place.value), str(place.value)])
    else:
        value = rng.choice(odd)
    place.set(value)
    return f"{place.path} = {shown(value)}"
