"""Charts of a report as numbers for its template, in percent of their box: x from the left, y from the top.

So lines stretch with the page while letters keep their size.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from compress.measure.values import Interval, Measurement
from compress.report.record import HistoryPoint, LayerSize
from compress.runtime.layers import LayerTime

LAYERS_SHOWN = 40
_STAGES = {
    "tune": "the heavy model, tuned",
    "cut": "after the cut",
    "repair": "after the repair",
    "distil": "distillation",
    "ptq": "int8 without training",
    "qat": "QAT",
}


@dataclass(frozen=True)
class Dot:
    """One thing in the trade-off plot. `kind`: teacher, student, control, earlier."""

    label: str
    kind: str
    iou: Interval
    size_bytes: float | None = None
    latency_ms: float | None = None


def trade_off(dots: Sequence[Dot]) -> list[dict[str, Any]]:
    """Two panels, IoU against bytes and against latency; a panel needs two dots that differ."""
    shown = [dot for dot in dots if all(map(math.isfinite, (dot.iou.mean, dot.iou.low, dot.iou.high)))]
    if not shown:
        return []
    low, high = min(dot.iou.low for dot in shown), max(dot.iou.high for dot in shown)
    reach = max(high - low, 0.02)
    low, high = max(0.0, low - 0.08 * reach), min(1.0 + 0.03 * reach, high + 0.08 * reach)
    panels = [
        _panel("size", {dot: dot.size_bytes for dot in shown}, low, high),
        _panel("latency", {dot: dot.latency_ms for dot in shown}, low, high),
    ]
    return [panel for panel in panels if panel]


def _panel(axis: str, places: Mapping[Dot, float | None], low: float, high: float) -> dict[str, Any] | None:
    known = {dot: place for dot, place in places.items() if place}
    if len(set(known.values())) < 2:
        return None
    left, right = math.log10(min(known.values())), math.log10(max(known.values()))
    margin = 0.08 * (right - left)
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
            "x": x(place),
            "y": y(dot.iou.mean),
            "top": y(min(dot.iou.high, high)),
            "bottom": y(max(dot.iou.low, low)),
            "text": f"{dot.label}: {word(place)}, IoU {dot.iou.mean:.3f} [{dot.iou.low:.3f}, {dot.iou.high:.3f}]",
        }
        for dot, place in known.items()
    ]
    return {
        "title": {"size": "size of the file", "latency": "latency, median"}[axis],
        "dots": dots,
        "labels": _labels(dots),
        "x_ticks": [(x(tick), word(tick)) for tick in _decades(10**left, 10**right)],
        "y_ticks": [(y(tick), f"{tick:.2g}") for tick in _ticks(low, min(high, 1.0))],
    }


def _labels(dots: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One label for dots that touch, on the side of the dot where it meets no other dot or label.

    A letter is taken to be 3.2 % wide, a label at most 48 %, and a line 8 % high, as they are in the smallest box.
    """
    groups: list[list[dict[str, Any]]] = []
    for dot in dots:
        near = [group for group in groups if abs(group[0]["x"] - dot["x"]) < 3.5 and abs(group[0]["y"] - dot["y"]) < 5]
        if near and near[0][0]["kind"] == dot["kind"]:
            near[0].append(dot)
        else:
            groups.append([dot])
    taken = [(dot["x"] - 2.5, dot["x"] + 2.5, dot["y"] - 3, dot["y"] + 3) for dot in dots]
    labels = []
    for group in groups:
        x, y, words = group[0]["x"], group[0]["y"], ", ".join(dot["label"] for dot in group)
        width = min(48.0, 3.2 * len(words))
        start = x - 2 if x < width / 2 else x + 2 - width if x > 100 - width / 2 else x - width / 2
        align = "start" if x < width / 2 else "end" if x > 100 - width / 2 else "middle"
        boxes = {
            "right": (x + 3, x + 3 + width, y - 4, y + 4),
            "left": (x - 3 - width, x - 3, y - 4, y + 4),
            "below": (start, start + width, y + 4, y + 12),
            "above": (start, start + width, y - 12, y - 4),
        }
        free = [side for side, box in boxes.items() if _fits(box) and not any(_meet(box, other) for other in taken)]
        side = free[0] if free else "right" if x < 50 else "left"
        taken.append(boxes[side])
        labels.append({"x": x, "y": y, "side": side, "align": align, "words": words, "kind": group[0]["kind"]})
    return labels


def _fits(box: tuple[float, ...]) -> bool:
    return box[0] >= -2 and box[1] <= 102 and box[2] >= -4 and box[3] <= 100


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def _decades(low: float, high: float) -> list[float]:
    """Two to six round numbers from low to high, for a logarithmic axis."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10)), tuple(n / 10 for n in range(10, 100))):
        found = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        ticks = [tick for tick in found if low <= tick <= high]
        if len(ticks) >= 3:
            return ticks[:: -(-len(ticks) // 6)]
    return ticks


def short_ms(milliseconds: float) -> str:
    """Three digits, for example "308 ms", "0.12 ms"."""
    return f"{milliseconds:,.0f} ms" if milliseconds >= 100 else f"{milliseconds:.3g} ms"


def times_by_layer(times: Sequence[LayerTime]) -> dict[str, Any] | None:
    """Bars from zero, the slowest layers first."""
    ranked = sorted(times, key=lambda layer: -layer.ms)
    rest = ranked[LAYERS_SHOWN:]
    if rest:
        name = f"the {len(rest)} faster layers together"
        ranked = [*ranked[:LAYERS_SHOWN], LayerTime(name, "", sum(layer.ms for layer in rest))]
    total = sum(layer.ms for layer in times)
    if not total:
        return None
    longest = max(layer.ms for layer in ranked)
    return {
        "total": short_ms(total),
        "rows": [
            {
                "name": layer.name,
                "kernel": layer.kernel if layer.kernel != layer.name else "",
                "width": round(100 * layer.ms / longest, 2),
                "text": f"{layer.ms:.3f} ms" if total < 10 else f"{layer.ms:.2f} ms",
                "share": f"{100 * layer.ms / total:.1f} %",
            }
            for layer in ranked
        ],
    }


def curve(history: Sequence[HistoryPoint], teacher: Measurement) -> dict[str, Any] | None:
    """IoU against training time."""
    known = [point for point in history if math.isfinite(point.iou)]
    if not known:
        return None
    level = teacher.iou.mean if teacher.iou and math.isfinite(teacher.iou.mean) else None
    heights = [point.iou for point in known] + ([level] if level is not None else [])
    low = max(0.0, math.floor(min(heights) * 10 - 0.5) / 10)
    high = min(1.0, math.ceil(max(heights) * 10 + 0.2) / 10)
    width = max(point.minutes for point in known) or 1.0

    def x(minutes: float) -> float:
        return round(100 * minutes / width, 2)

    def y(iou: float) -> float:
        return round(100 * (high - iou) / (high - low), 2)

    points = [{"x": x(each.minutes), "y": y(each.iou), "stage": each.stage, "text": _words(each)} for each in known]
    return {
        "points": points,
        "lines": _lines(points),
        "marks": _marks(points),
        "best": _best(known),
        "x_ticks": [(x(tick), f"{tick:g}") for tick in _ticks(0, width)],
        "y_ticks": [(y(tick), f"{tick:.2g}") for tick in _ticks(low, high)],
        "teacher": None if level is None else {"y": y(level), "text": f"{level:.3f}"},
    }


def _lines(points: list[dict[str, Any]]) -> list[dict[str, str]]:
    """A line per stage, each starting where the stage before ended."""
    lines, last = [], None
    for stage, group in groupby(points, key=lambda point: point["stage"]):
        here = [f"{point['x']} {point['y']}" for point in group]
        lines.append({"stage": stage, "path": "M" + " L".join([last, *here] if last else here)})
        last = here[-1]
    return [line for line in lines if "L" in line["path"]]


def _marks(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points that are named in the chart: below the point, clear of the curve, unless the one before is there."""
    marks: list[dict[str, Any]] = []
    for point in points:
        if point["stage"] in ("cut", "repair"):
            crowded = bool(marks) and 0 <= marks[-1]["y"] - point["y"] < 10
            marks.append({**point, "place": "above" if crowded else "below"})
    return marks


def _best(known: Sequence[HistoryPoint]) -> list[dict[str, str]]:
    stages = dict.fromkeys(point.stage for point in known)
    best = {stage: max(point.iou for point in known if point.stage == stage) for stage in stages}
    counts = {stage: sum(point.stage == stage for point in known) for stage in stages}
    return [
        {
            "stage": stage,
            "label": _STAGES.get(stage, stage) + (", best" if counts[stage] > 1 else ""),
            "iou": f"{best[stage]:.3f}",
        }
        for stage in stages
    ]


def _words(point: HistoryPoint) -> str:
    loss = "" if point.loss is None else f", loss {point.loss:.4g}"
    return f"{_STAGES.get(point.stage, point.stage)}: IoU {point.iou:.3f} at {point.minutes:.1f} min{loss}"


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers from low to high."""
    unit = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(unit * factor for factor in (1, 2, 5, 10) if (high - low) / (unit * factor) <= 6)
    first = math.ceil(low / step - 1e-6)
    return [round(number * step, 9) for number in range(first, math.floor(high / step + 1e-6) + 1)]


def sizes_by_layer(layers: Sequence[LayerSize]) -> dict[str, Any] | None:
    """Rows of the size chart, on a logarithmic axis: a bar from zero would hide every layer of the student."""
    ranked = sorted(layers, key=lambda layer: -layer.before_bytes)
    shown = [(layer.name, layer.before_bytes, layer.after_bytes, _channels(layer)) for layer in ranked[:LAYERS_SHOWN]]
    rest = ranked[LAYERS_SHOWN:]
    if rest:
        before, after = sum(layer.before_bytes for layer in rest), sum(layer.after_bytes for layer in rest)
        shown.append((f"the {len(rest)} smaller layers together", before, after, ""))
    sizes = [size for _, before, after, _ in shown for size in (before, after) if size > 0]
    if not sizes:
        return None
    low, high = math.floor(math.log10(min(sizes))), math.floor(math.log10(max(sizes))) + 1

    def x(size_bytes: int) -> float:
        return round(100 * (math.log10(max(size_bytes, 10**low)) - low) / (high - low), 2)

    every = 1 if high - low < 6 else 2  # so that the words of the axis do not touch
    return {
        "ticks": [(x(10**p), "" if (p - low) % every else short_bytes(10**p)) for p in range(low, high + 1)],
        "rows": [
            {
                "name": name,
                "before": x(before),
                "after": x(after),
                "text": f"{short_bytes(before)} → {short_bytes(after) if after else 'removed'}",
                "channels": channels,
            }
            for name, before, after, channels in shown
        ],
        "total": tuple(
            short_bytes(sum(getattr(each, key) for each in layers)) for key in ("before_bytes", "after_bytes")
        ),
    }


def _channels(layer: LayerSize) -> str:
    if layer.before_channels == layer.after_channels:
        return f"{layer.before_channels} channel{'' if layer.before_channels == 1 else 's'}"
    return f"{layer.before_channels} → {layer.after_channels} channels"


def short_bytes(size_bytes: float) -> str:
    """Three digits, for example "4.72 MB", "96.1 kB", "850 B"."""
    for unit, factor in (("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            value = size_bytes / factor
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"
    return f"{size_bytes:.0f} B"
