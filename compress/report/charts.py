"""Charts of a report as numbers for its template, in percent of their box: x from the left, y from the top.

So lines stretch with the page while letters keep their size.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from compress.measure.values import Measurement
from compress.report.record import HistoryPoint, LayerSize
from compress.report.words import short_bytes, short_ms
from compress.runtime.layers import LayerTime

LAYERS_SHOWN = 40
STAGES = {
    "tune": "the heavy model, tuned",
    "cut": "after the cut",
    "repair": "after the repair",
    "between": "between two cuts",
    "distil": "distillation",
    "ptq": "int8 without training",
    "qat": "QAT",
}
_MOMENTS = ("cut", "repair", "between")  # of which there is a figure, but no training to look at


def times_by_layer(times: Sequence[LayerTime]) -> dict[str, Any] | None:
    """Bars from zero, the slowest layers first."""
    ranked = sorted((layer for layer in times if layer.ms > 0), key=lambda layer: -layer.ms)
    total = sum(layer.ms for layer in ranked)
    rest = ranked[LAYERS_SHOWN:]
    if rest:
        name = f"the {len(rest)} faster layers together"
        ranked = [*ranked[:LAYERS_SHOWN], LayerTime(name, "", sum(layer.ms for layer in rest))]
    if not 0 < total < math.inf:
        return None
    longest = max(layer.ms for layer in ranked)
    return {
        "total": short_ms(total),
        "count": len(times),
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
    """IoU against training time, scaled to where training moves it: what lies far below, as after the cut, is written
    at the lower edge."""
    known = [point for point in history if 0 <= point.iou <= 1 and 0 <= point.minutes < math.inf]
    if not known:
        return None
    level = teacher.iou.mean if teacher.iou and 0 <= teacher.iou.mean <= 1 else None
    low, high = _reach(known, level)
    width = max(point.minutes for point in known)
    width = width if width > 1e-3 else 1.0

    def x(minutes: float) -> float:
        return round(100 * (minutes / width), 2)

    def y(iou: float) -> float:
        return round(100 * (high - iou) / (high - low), 2)

    points: list[dict[str, Any]] = [
        {"x": x(each.minutes), "y": y(each.iou), "stage": each.stage, "look": look(each.stage), "text": _words(each)}
        for each in known
    ]
    inside = [point for point in points if point["y"] <= 100]
    return {
        "points": inside,
        "lines": _lines(points),
        "marks": _marks(inside),
        "below": _below([(x(each.minutes), each) for each in known if y(each.iou) > 100]),
        "best": _best(known),
        "x_ticks": [(x(tick), f"{tick:g}") for tick in ticks(0, width)],
        "y_ticks": [(y(tick), f"{tick:.3g}") for tick in ticks(low, high)],
        "teacher": None if level is None else {"y": y(level), "text": f"{level:.3f}"},
    }


def look(stage: str) -> str:
    """The CSS class of a stage."""
    return stage if stage in STAGES else "other"


def _reach(known: Sequence[HistoryPoint], level: float | None) -> tuple[float, float]:
    """The lowest and highest IoU that the axis shows."""
    moving = [point.iou for point in known if point.stage not in _MOMENTS] or [point.iou for point in known]
    heights = moving + ([] if level is None else [level])
    margin = max(0.08 * (max(heights) - min(heights)), 0.005)
    return max(0.0, min(heights) - margin), min(1.0, max(heights) + margin)


def _lines(points: list[dict[str, Any]]) -> list[dict[str, str]]:
    """A line per stage, each starting where the stage before ended."""
    lines, last = [], None
    for stage, group in groupby(points, key=lambda point: point["look"]):
        here = [f"{point['x']} {point['y']}" for point in group]
        lines.append({"look": stage, "path": "M" + " L".join([last, *here] if last else here)})
        last = here[-1]
    return [line for line in lines if "L" in line["path"]]


def _marks(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points that are named in the chart: below the point, clear of the curve, unless the one before is there."""
    marks: list[dict[str, Any]] = []
    for point in points:
        if point["stage"] in ("cut", "repair"):
            crowded = bool(marks) and 0 <= marks[-1]["y"] - point["y"] < 10
            end = " end" if point["x"] > 75 else ""
            marks.append({**point, "place": ("above" if crowded else "below") + end})
    return marks


def _below(points: Sequence[tuple[float, HistoryPoint]]) -> list[dict[str, Any]]:
    """What is under the lower edge, in a line for each time, each line above the one before."""
    lines = []
    for place, (x, group) in enumerate(groupby(points, key=lambda point: point[0])):
        words = ", ".join(f"{point.stage} {point.iou:.3f}" for _, point in group)
        lines.append({"x": x, "y": 100 - 9 * min(place, 9), "side": "end" if x > 50 else "start", "words": words})
    return lines


def _best(known: Sequence[HistoryPoint]) -> list[dict[str, str]]:
    stages = dict.fromkeys(point.stage for point in known)
    best = {stage: max(point.iou for point in known if point.stage == stage) for stage in stages}
    counts = {stage: sum(point.stage == stage for point in known) for stage in stages}
    return [
        {
            "look": look(stage),
            "label": STAGES.get(stage, stage) + (", best" if counts[stage] > 1 else ""),
            "iou": f"{best[stage]:.3f}",
        }
        for stage in stages
    ]


def _words(point: HistoryPoint) -> str:
    loss = "" if point.loss is None else f", loss {point.loss:.4g}"
    return f"{STAGES.get(point.stage, point.stage)}: IoU {point.iou:.3f} at {point.minutes:.1f} min{loss}"


def ticks(low: float, high: float) -> list[float]:
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
        "count": len(layers),
        "total": tuple(
            short_bytes(sum(getattr(each, key) for each in layers)) for key in ("before_bytes", "after_bytes")
        ),
    }


def _channels(layer: LayerSize) -> str:
    if layer.before_channels == layer.after_channels:
        return f"{layer.before_channels} channel{'' if layer.before_channels == 1 else 's'}"
    return f"{layer.before_channels} → {layer.after_channels} channels"
