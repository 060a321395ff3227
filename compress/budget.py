"""Budgets as people write them, and the verdict on what was measured.

    4MB, 4MiB, size<=4MB            bytes of every exported file
    20ms, latency<=20ms             median latency of the TFLite file (of every file, where there is none)
    latency<=0.12x teacher.onnx     the same, as a share of another file's, measured in turns with it
    macs<=1.5G                      multiply-accumulates of one inference, of every exported file; in K, M or G
    iou>=0.86                       mean IoU of every exported file
    iou_drop<=0.01 [teacher.onnx]   how much lower that is than another file's, paired by image
    miou>=0.6, miou_drop<=0.01      the same of mIoU: the mean over classes of IoU over all images together

This module starts in milliseconds: a gate on sizes needs no more.
"""

import contextlib
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import PurePath
from typing import Any, Final, Literal, cast

from compress.errors import BudgetError
from compress.measure.values import Interval, Measurement

TEACHER = "teacher.onnx"
"""What a run calls the heavy model that it measures beside the exported files."""

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,15})?)"
_SIZE = re.compile(rf"\s*{_NUMBER}\s*([A-Za-z]+)\s*")
_MILLISECONDS = re.compile(rf"\s*{_NUMBER}\s*ms\s*", re.IGNORECASE)
_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_COUNT = re.compile(rf"\s*{_NUMBER}\s*([kmg]?)\s*", re.IGNORECASE)
_RATIO = re.compile(rf"\s*{_NUMBER}\s*x\s+(\S.*?)\s*", re.IGNORECASE)
_LIMIT = re.compile(r"\s*([a-z_]+)\s*(<=|>=)(.*)", re.IGNORECASE)
_STRICT = re.compile(r"\s*([a-z_]+)\s*(<|>|=|==|=<|=>|≤|≥)\s*([^<>=\s].*)", re.IGNORECASE)
_DROP = re.compile(rf"\s*{_NUMBER}(?:\s+(\S.*?))?\s*")
_IOU = re.compile(rf"\s*{_NUMBER}\s*")

Metric = Literal["size", "latency", "macs", "iou", "iou_drop", "miou", "miou_drop"]
AT_LEAST: Final = ("iou", "miou")
"""Metrics that more is better of."""
DROPS: Final = ("iou_drop", "miou_drop")
ACCURACY: Final = (*AT_LEAST, *DROPS)
"""Metrics that images tell."""
COUNTED: Final = ("size", "macs")
"""Metrics in whole numbers, which the file alone tells."""
Subject = tuple[str, Metric, str | None]
"""What is limited: the format of a file, the metric, and the file that it is taken against, if any."""
EXAMPLES = {
    "size": "size<=4MB",
    "latency": "latency<=20ms or latency<=0.12x teacher.onnx",
    "macs": "macs<=1.5G",
    "iou": "iou>=0.86",
    "iou_drop": "iou_drop<=0.01",
    "miou": "miou>=0.6",
    "miou_drop": "miou_drop<=0.01",
}


class _Limited:
    """What a metric, and the file that it is taken against, decide of a limit and of its check."""

    metric: Metric
    reference: str | None

    @property
    def at_least(self) -> bool:
        return self.metric in AT_LEAST

    @property
    def unit(self) -> str:
        if self.metric == "latency":
            return "x" if self.reference else "ms"
        return {"size": "bytes", "macs": "macs"}.get(self.metric, "")

    @property
    def kind(self) -> str:
        """What is limited, in words that tell it from every other limit of a budget."""
        words = self.metric.replace("_", " ").replace("iou", "IoU").replace("macs", "MACs")
        return f"{words} against {self.reference}" if self.reference else words


@dataclass(frozen=True)
class Limit(_Limited):
    """One limit. `value` is in bytes, milliseconds, shares of `reference`'s latency, multiply-accumulates, or IoU from
    0 to 1.

    `reference` is the file that a latency's share, or an IoU drop, is taken against, as it was written.
    """

    metric: Metric
    value: float
    text: str
    reference: str | None = None

    def concerns(self, format: str, formats: Collection[str]) -> bool:
        """Whether a file of `format`, one of a folder's `formats`, must meet it: an app on a phone runs the TFLite
        file, so where there is one, a latency is of that file."""
        return self.metric != "latency" or format == "tflite" or "tflite" not in formats


def parse_size(text: str) -> int:
    """Bytes in "4MB" (4_000_000), "4MiB" (4_194_304), "900KB"; anything else is a BudgetError."""
    match = _SIZE.fullmatch(text)
    units = {unit.lower(): factor for unit, factor in _UNITS.items()}
    if not match or match[2].lower() not in units or float(match[1]) * units[match[2].lower()] < 1:
        raise BudgetError(f"budget {text!r} is not a size: write a positive number with a unit, such as 4MB or 4MiB")
    return int(float(match[1]) * units[match[2].lower()])


def parse_limit(text: str) -> Limit:
    """One limit as the head of this module lists them. Raises BudgetError, naming the text and what to write."""
    if "\0" in text:
        raise BudgetError(f"budget {text!r}: no file is named like this; write it like {EXAMPLES['size']}")
    if match := _LIMIT.fullmatch(text):
        name, sign, rest = match[1].lower(), match[2], match[3]
        if name == "size" and sign == "<=":
            with contextlib.suppress(BudgetError):
                return Limit("size", parse_size(rest), text)
        if name == "latency" and sign == "<=":
            if (found := _MILLISECONDS.fullmatch(rest)) and float(found[1]) > 0:
                return Limit("latency", float(found[1]), text)
            if (found := _RATIO.fullmatch(rest)) and float(found[1]) > 0:
                return Limit("latency", float(found[1]), text, found[2])
        if name == "macs" and sign == "<=" and (found := _COUNT.fullmatch(rest)) and (count := _count(found)) >= 1:
            return Limit("macs", count, text)
        if name in AT_LEAST and sign == ">=" and (found := _IOU.fullmatch(rest)) and 0 < float(found[1]) <= 1:
            return Limit(cast(Metric, name), float(found[1]), text)
        if name in DROPS and sign == "<=" and (found := _DROP.fullmatch(rest)) and float(found[1]) < 1:
            return Limit(cast(Metric, name), float(found[1]), text, found[2])
        example = EXAMPLES.get(name)
        if example is None:
            raise BudgetError(f"budget {text!r}: {name!r} is not measured; limit {', '.join(EXAMPLES)}")
        raise BudgetError(f"budget {text!r} makes no sense: write it like {example}")
    if (found := _STRICT.fullmatch(text)) and (name := found[1].lower()) in EXAMPLES:
        meant = f"{name}{'>=' if name in AT_LEAST else '<='}{found[3]}"
        raise BudgetError(f"budget {text!r}: write {meant}")
    if (found := _MILLISECONDS.fullmatch(text)) and float(found[1]) > 0:
        return Limit("latency", float(found[1]), text)
    try:
        return Limit("size", parse_size(text), text)
    except BudgetError as error:
        raise BudgetError(f"{error}; or a latency such as 20ms, or a limit such as iou>=0.86") from None


def _count(found: re.Match[str]) -> int:
    return round(float(found[1]) * _THOUSANDS[found[2].lower()])


@dataclass(frozen=True)
class Budget:
    """The limits that the exported files must meet: of each kind the tightest."""

    limits: tuple[Limit, ...] = ()

    @classmethod
    def parse(cls, texts: Collection[str], references: Collection[str] | None = None) -> "Budget":
        """Several budgets, as given with repeated `--budget`.

        `references`: names of the files that there will be to compare with; None: whatever is named.
        Raises BudgetError.
        """
        tightest: dict[str, Limit] = {}
        for limit in map(parse_limit, texts):
            if references is not None and limit.reference not in (None, *references):
                known = ", ".join(references)
                raise BudgetError(f"budget {limit.text!r}: there is no {limit.reference} to compare with; name {known}")
            key = f"{limit.metric} {limit.unit} {limit.reference}"
            other = tightest.get(key, limit)
            tighter = max if limit.at_least else min
            tightest[key] = tighter(other, limit, key=lambda one: one.value)
        return cls(tuple(tightest.values()))

    @property
    def size_bytes(self) -> int | None:
        """The largest that an exported file may be."""
        return next((int(limit.value) for limit in self.limits if limit.metric == "size"), None)

    @property
    def latency_ms(self) -> float | None:
        """The longest that the TFLite file may take, by its median."""
        return next((one.value for one in self.limits if one.metric == "latency" and not one.reference), None)

    @property
    def macs(self) -> int | None:
        """The most multiply-accumulates that an exported file may have."""
        return next((int(limit.value) for limit in self.limits if limit.metric == "macs"), None)


@dataclass(frozen=True)
class Check(_Limited):
    """One limit of one file, and what was measured: `measured` within `low` to `high` with 95 % confidence, both None
    where the figure is exact, in bytes, milliseconds, shares of `reference`'s latency, multiply-accumulates, or IoU
    from 0 to 1, as `limit`. A missing measurement never passes, and neither does one whose interval holds the limit,
    unless the verdict is lenient."""

    format: str  # of the file: "onnx", "tflite", "ort"
    metric: Metric
    measured: float | None
    limit: float
    passed: bool
    low: float | None = None
    high: float | None = None
    reference: str | None = None
    undecided: bool = False

    @property
    def name(self) -> str:
        """For people: "tflite latency against teacher.onnx"."""
        return f"{self.format} {self.kind}"

    @property
    def subject(self) -> Subject:
        return self.format, self.metric, self.reference

    def to_json(self) -> dict[str, Any]:
        """Its fields, and what they decide, for readers that do not know the rules."""
        return {"name": self.name, **asdict(self), "unit": self.unit, "at_least": self.at_least}


def fields_of_name(name: str) -> dict[str, Any]:
    """`format`, `metric` and `reference` of a check by the name that older reports give it, and nothing else."""
    format, _, kind = name.partition(" ")
    words, _, reference = kind.partition(" against ")
    return {"format": format, "metric": words.lower().replace(" ", "_"), "reference": reference or None}


@dataclass(frozen=True)
class Verdict:
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        return {"checks": [check.to_json() for check in self.checks], "passed": self.passed}


def judge(measurements: Mapping[str, Measurement], budget: Budget) -> Verdict:
    """Verdict on the exported files of a run, named by their format. A reference is the run's heavy model."""
    return Verdict(
        tuple(
            check(name, limit, measured_in_run(limit, measured))
            for limit in budget.limits
            for name, measured in measurements.items()
            if limit.concerns(name, measurements)
        )
    )


def check(format: str, limit: Limit, measured: Interval | None, *, lenient: bool = False) -> Check:
    """The verdict on one limit of the file of `format`. `measured` is in the limit's unit; None: not measured.

    Lenient, a limit inside the interval passes.
    """
    value: float = int(limit.value) if limit.metric in COUNTED else limit.value
    missing = Check(format, limit.metric, None, value, False, reference=limit.reference)
    if measured is None:
        return missing
    exact = measured.low == measured.high
    best, worst = (measured.high, measured.low) if limit.at_least else (measured.low, measured.high)

    def meets(figure: float) -> bool:
        return figure >= limit.value if limit.at_least else figure <= limit.value

    undecided = meets(best) and not meets(worst)
    return replace(
        missing,
        measured=measured.mean,
        passed=meets(worst) or (undecided and lenient),
        low=None if exact else measured.low,
        high=None if exact else measured.high,
        undecided=undecided,
    )


def measured_in_run(limit: Limit, found: Measurement) -> Interval | None:
    """What a run measured, in the limit's unit; None: nothing, or against another file than its heavy model."""
    if limit.metric in COUNTED:
        figure = found.size_bytes if limit.metric == "size" else found.macs
        return None if figure is None else exactly(figure)
    if limit.metric in AT_LEAST:
        return found.iou if limit.metric == "iou" else found.miou
    if limit.reference and PurePath(limit.reference).name != TEACHER:
        return None
    if limit.metric in DROPS:
        return found.iou_drop if limit.metric == "iou_drop" else found.miou_drop
    if limit.reference:
        faster = found.speedup
        return None if faster is None else Interval(1 / faster.mean, 1 / faster.high, 1 / faster.low)
    return None if found.latency is None else exactly(found.latency.p50_ms)


def exactly(figure: float) -> Interval:
    """A figure that is counted, not estimated."""
    return Interval(figure, figure, figure)
