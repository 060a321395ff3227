"""The plot of IoU against bytes and latency as numbers for its template, in percent of its box."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compress.measure.values import Interval, Measurement
from compress.report.charts import ticks
from compress.report.words import short_bytes, short_ms

Box = tuple[float, float, float, float]  # left, right, top, bottom
_DRAWN = (1e-6, 1e15)  # milliseconds or bytes that have a place on a logarithmic axis
_LETTER, _LINE = 3.2, 8.0  # width and height of a label's, as they are in the smallest box


@dataclass(frozen=True)
class Dot:
    """One thing in the plot. `kind`, which decides its look: teacher, student, control, earlier, run-1 to run-6.

    `label` stands beside it, behind `mark` where there is one; `name` says it in full.
    """

    label: str
    kind: str
    iou: Interval
    size_bytes: float | None = None
    latency_ms: float | None = None
    mark: str = ""
    name: str = ""

    @property
    def title(self) -> str:
        return self.name or self.label


def dot_of(
    label: str, kind: str, measured: Measurement, teacher: Measurement | None = None, *, mark: str = "", name: str = ""
) -> Dot | None:
    """None without an IoU from 0 to 1. With `teacher`, the latency is what the speedup makes of the teacher's, as for
    what was measured at another time."""
    iou = measured.iou
    if iou is None or not all(0 <= each <= 1 for each in (iou.mean, iou.low, iou.high)):
        return None
    latency = _latency(measured) if teacher is None else _latency_then(measured, teacher)
    return Dot(label, kind, iou, measured.size_bytes, latency, mark, name)


def _latency(measured: Measurement) -> float | None:
    return measured.latency.p50_ms if measured.latency else None


def _latency_then(measured: Measurement, teacher: Measurement) -> float | None:
    latency, speedup = _latency(teacher), measured.speedup
    return latency / speedup.mean if latency and speedup and speedup.mean else None


def trade_off(dots: Sequence[Dot]) -> list[dict[str, Any]]:
    """Two panels, IoU against bytes and against latency; a panel needs two dots that differ."""
    if not dots:
        return []
    low, high = min(dot.iou.low for dot in dots), max(dot.iou.high for dot in dots)
    reach = max(high - low, 0.02)
    low, high = max(0.0, low - 0.08 * reach), min(1.0 + 0.03 * reach, high + 0.08 * reach)
    panels = [
        _panel("size", {dot: dot.size_bytes for dot in dots}, low, high),
        _panel("latency", {dot: dot.latency_ms for dot in dots}, low, high),
    ]
    return [panel for panel in panels if panel]


def _panel(axis: str, places: Mapping[Dot, float | None], low: float, high: float) -> dict[str, Any] | None:
    known = {dot: place for dot, place in places.items() if place and _DRAWN[0] <= place <= _DRAWN[1]}
    if len(set(known.values())) < 2:
        return None
    left, right = math.log10(min(known.values())), math.log10(max(known.values()))
    margin = 0.08 * max(right - left, 1e-3)
    left, right = left - margin, right + margin
    word = short_bytes if axis == "size" else short_ms

    def x(value: float) -> float:
        return round(100 * (math.log10(value) - left) / (right - left), 2)

    def y(iou: float) -> float:
        return round(100 * (high - iou) / (high - low), 2)

    dots = [
        {
            "kind": dot.kind,
            "label": dot.label,
            "mark": dot.mark,
            "x": x(place),
            "y": y(dot.iou.mean),
            "top": y(min(dot.iou.high, high)),
            "bottom": y(max(dot.iou.low, low)),
            "text": f"{dot.title}: {word(place)}, IoU {dot.iou.mean:.3f} [{dot.iou.low:.3f}, {dot.iou.high:.3f}]",
        }
        for dot, place in known.items()
    ]
    return {
        "title": {"size": "size of the file", "latency": "latency, median"}[axis],
        "dots": dots,
        "labels": labels(dots),
        "x_ticks": [(x(tick), word(tick)) for tick in _decades(10**left, 10**right)],
        "y_ticks": [(y(tick), f"{tick:.2g}") for tick in ticks(low, min(high, 1.0))],
    }


def labels(dots: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One label for dots that touch, on the side of the dot where it meets no other dot or label. One that finds no
    room is left out: every dot also says what it is when it is pointed at."""
    taken: list[Box] = [(dot["x"] - 2.5, dot["x"] + 2.5, dot["y"] - 3, dot["y"] + 3) for dot in dots]
    found = []
    for group in _touching(dots):
        first = group[0]
        words = " ".join(filter(None, (first["mark"], ", ".join(dict.fromkeys(dot["label"] for dot in group)))))
        sides = _sides(first["x"], first["y"], _LETTER * len(words))
        free = [side for side, box in sides.items() if _fits(box) and not any(_meet(box, other) for other in taken)]
        if free:
            box = sides[free[0]]
            taken.append(box)
            found.append({"kind": first["kind"], "words": words, "side": free[0]} | _anchor(free[0], box))
    return found


def _touching(dots: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    groups: list[list[dict[str, Any]]] = []
    for dot in dots:
        near = [group for group in groups if abs(group[0]["x"] - dot["x"]) < 3.5 and abs(group[0]["y"] - dot["y"]) < 5]
        if near and near[0][0]["kind"] == dot["kind"]:
            near[0].append(dot)
        else:
            groups.append([dot])
    return groups


def _sides(x: float, y: float, width: float) -> dict[str, Box]:
    """Where a label of that width can stand, the best place first."""
    start = min(max(x - width / 2, -2.0), 102 - width)
    half = _LINE / 2
    return {
        "right": (x + 3, x + 3 + width, y - half, y + half),
        "left": (x - 3 - width, x - 3, y - half, y + half),
        "below": (start, start + width, y + 4, y + 4 + _LINE),
        "above": (start, start + width, y - 4 - _LINE, y - 4),
    }


def _anchor(side: str, box: Box) -> dict[str, float]:
    """The point of the box that is nearest to the dot, from which the label grows: letters are narrower than `_LETTER`
    where there is more room."""
    left, right, top, bottom = box
    x = {"right": left, "left": right}.get(side, (left + right) / 2)
    y = {"below": top, "above": bottom}.get(side, (top + bottom) / 2)
    return {"x": round(x, 2), "y": round(y, 2)}


def _fits(box: Box) -> bool:
    return box[0] >= -2 and box[1] <= 102 and box[2] >= -4 and box[3] <= 100


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def _decades(low: float, high: float) -> list[float]:
    """Two to six round numbers from low to high, for a logarithmic axis."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10)), tuple(n / 10 for n in range(10, 100))):
        found = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        inside = [tick for tick in found if low <= tick <= high]
        if len(inside) >= 3:
            break
    return inside[:: max(1, -(-len(inside) // 6))]
