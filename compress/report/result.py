"""What a run came to, as the first screen of its page says it: how much smaller and faster, IoU beside the teacher's,
and what to do next."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from compress.budget import ACCURACY, Check
from compress.measure.values import Interval, Measurement
from compress.report.contradictions import FLOAT, SAME_SIZE, iou_gain, relative_speed
from compress.report.record import RunRecord
from compress.report.summary import NOT_MEASURED
from compress.report.words import TITLES, exact_factor, factor, short_bytes, short_count, short_ms

_BY_CHANCE = "which can be chance"


@dataclass(frozen=True)
class Figure:
    """`value` is read first ("45×"), then `words` ("smaller"), then `interval` and `detail`; `line` is short."""

    value: str
    words: str
    interval: str = ""
    detail: str = ""

    @property
    def line(self) -> str:
        joint = " " if self.interval.startswith("[") else ", "
        return f"{self.value} {self.words}" + (f"{joint}{self.interval}" if self.interval else "")


@dataclass(frozen=True)
class Step:
    """What to do next, with the command that does it, if one does."""

    words: str
    command: str = ""


def lead(measurements: Mapping[str, Measurement]) -> str | None:
    """The file that a result is told by: the TFLite file, or the first one."""
    formats = [name for name in measurements if name not in FLOAT]
    return "tflite" if "tflite" in formats else next(iter(formats), None)


def figures(record: RunRecord) -> list[Figure]:
    """Size, speed and IoU of the leading file against the teacher's."""
    name = lead(record.measurements)
    ours = record.measurements[name] if name else Measurement()
    theirs = record.measurements.get("teacher", Measurement())
    return [_size(ours, theirs), _speed(ours, theirs, ours.speedup), _iou(ours, theirs, _drop(ours), record)]


def remarks(record: RunRecord) -> list[tuple[str, str]]:
    """The same in a line each: of the other files, and of the leading one against the network that was compressed,
    where another one taught."""
    first = lead(record.measurements)
    teacher, source = (record.measurements.get(name, Measurement()) for name in FLOAT)
    lines = [
        (TITLES.get(name, name), [_size(each, teacher), _speed(each, teacher, each.speedup), _iou_alone(each)])
        for name, each in record.measurements.items()
        if name not in (*FLOAT, first)
    ]
    if first and "source" in record.measurements:
        ours = record.measurements[first]
        gain = None if ours.by_class else iou_gain(source, ours)
        speed = relative_speed(ours, source)
        against = [_size(ours, source), _speed(ours, source, speed), _iou(ours, source, gain, record)]
        lines.append((f"{TITLES.get(first, first)} against the network that was compressed", against))
    return [(title, ", ".join(each.line for each in found if each.value != NOT_MEASURED)) for title, found in lines]


def _size(ours: Measurement, theirs: Measurement) -> Figure:
    if not ours.size_bytes or ours.size_bytes < 0:
        return Figure(NOT_MEASURED, "size")
    if not theirs.size_bytes or theirs.size_bytes < 0:
        return Figure(short_bytes(ours.size_bytes), "in size")
    change = f"{short_bytes(theirs.size_bytes)} → {short_bytes(ours.size_bytes)}"
    small, large = sorted((ours.size_bytes, theirs.size_bytes))
    if large / small - 1 < SAME_SIZE:
        return Figure("1×", "the size", detail=change)
    return Figure(factor(large / small) + "×", "smaller" if ours.size_bytes == small else "larger", detail=change)


def _speed(ours: Measurement, theirs: Measurement, speed: Interval | None) -> Figure:
    """Faster or slower only where it was shown; otherwise the ratio of speeds, whose interval holds 1."""
    if speed is None or speed.low <= 0:
        return Figure(NOT_MEASURED, "speed")
    a, b = theirs.latency, ours.latency
    change = f"{short_ms(a.p50_ms)} → {short_ms(b.p50_ms)}" if a and b else ""
    if speed.low <= 1 <= speed.high:
        return Figure(factor(speed.mean) + "×", "the speed", _brackets(speed), _BY_CHANCE)
    if speed.low > 1:
        return Figure(factor(speed.mean) + "×", "faster", _brackets(speed), change)
    slower = Interval(1 / speed.mean, 1 / speed.high, 1 / speed.low)
    return Figure(factor(slower.mean) + "×", "slower", _brackets(slower), change)


def _brackets(ratio: Interval) -> str:
    return f"[{exact_factor(ratio.low)}, {exact_factor(ratio.high)}]"


def _iou(ours: Measurement, theirs: Measurement, drop: Interval | None, record: RunRecord) -> Figure:
    alone, base = _iou_alone(ours), _mean(theirs)
    if record.data.reference == "teacher":
        return Figure(alone.value, f"agreement with the teacher, {alone.words}", alone.interval)
    if _mean(ours) is None or base is None:
        return alone
    words = f"{alone.words} beside {base.mean:.3f}"
    if drop is None:
        return Figure(alone.value, words, alone.interval)
    sign = -1 if drop.mean < 0 else 1
    low, high = sorted((sign * drop.low, sign * drop.high))
    change = f"{abs(drop.mean):.3f} {'more' if sign < 0 else 'less'} [{low:.3f}, {high:.3f}]"
    shown = "" if drop.low > 0 or drop.high < 0 else _BY_CHANCE
    return Figure(alone.value, words, change, shown)


def _iou_alone(ours: Measurement) -> Figure:
    words, found = "mIoU" if ours.by_class else "IoU", _mean(ours)
    if found is None:
        return Figure(NOT_MEASURED, words)
    return Figure(f"{found.mean:.3f}", words, f"[{found.low:.3f}, {found.high:.3f}]")


def _mean(each: Measurement) -> Interval | None:
    """What a file's accuracy is told by: of more than two classes mIoU, as the field has it."""
    return each.miou if each.by_class else each.iou


def _drop(each: Measurement) -> Interval | None:
    return each.miou_drop if each.by_class else each.iou_drop


def next_steps(record: RunRecord) -> list[Step]:
    """At least one."""
    checks = record.verdict.checks
    if not checks:
        return [Step("Say what the files must meet, and they are judged:", "compress gate DIR --budget 4MB")]
    if record.verdict.passed:
        name = next((a.path.name for a in record.artifacts if a.format == lead(record.measurements)), "the file")
        return [
            Step(f"Put {name} into the app, and golden.npz into its test: it holds an image and the output for it."),
            Step("Hold later files to the same limits in CI:", f"compress gate DIR{limit_flags(record)}"),
        ]
    return list(dict.fromkeys(_help(check) for check in checks if not check.passed))


def limit_flags(record: RunRecord) -> str:
    """The budget as flags, as its limits were written."""
    limits = record.recipe.get("budget")
    return "".join(f" --budget {shlex.quote(str(limit))}" for limit in limits) if isinstance(limits, list) else ""


def _help(check: Check) -> Step:
    data = " --data DATA" if check.metric in ACCURACY else ""
    if check.measured is None:
        return Step(f"Have the {check.kind} measured:", f"compress gate DIR{data}")
    if check.undecided and data:
        return Step(f"Measure on more labelled images: the interval of the {check.kind} holds the limit.")
    if check.undecided:
        return Step(f"Measure the {check.kind} for longer, on an idle machine:", "compress gate DIR --seconds 300")
    return {"size": _smaller, "latency": _faster, "macs": _lighter}.get(check.metric, _better)(check)


def _smaller(check: Check) -> Step:
    assert check.measured is not None
    over = f"The {TITLES.get(check.format, check.format)} file is {short_bytes(check.measured - check.limit)} too large"
    wanted = check.limit * min(1.0, check.limit / check.measured)
    return Step(f"{over}: run again for a smaller one:", f"compress run … --budget {wanted / 1e6:.3g}MB")


def _faster(check: Check) -> Step:
    assert check.measured is not None
    share = f"{check.limit / check.measured:.0%}".replace("%", " %")
    words = f"The {TITLES.get(check.format, check.format)} file must do with {share} of its time"
    return Step(f"{words}: run again with a lower macs_share under [plan], or smaller input_sizes.")


def _lighter(check: Check) -> Step:
    assert check.measured is not None
    over = f"{TITLES.get(check.format, check.format)} file has {short_count(check.measured - check.limit)}"
    return Step(f"The {over} multiply-accumulates too many: run again with smaller input_sizes under [plan].")


def _better(check: Check) -> Step:
    assert check.measured is not None
    words = f"{abs(check.measured - check.limit):.3f} IoU is missing: train for longer, on more photographs"
    return Step(f"{words}, or allow more bytes:", "compress run --resume DIR --minutes N")
