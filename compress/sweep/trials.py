"""A trial of a sweep: its folder, how `compress run` is called for it, and what its report says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.budget import Limit
from compress.errors import DataError
from compress.measure.values import Interval, Measurement
from compress.release.manifest import FILE as MANIFEST
from compress.report.read import read_record
from compress.report.record import RunRecord
from compress.report.result import lead
from compress.sweep.executor import Job
from compress.sweep.space import BUDGET, INPUT_SIZE, MACS_SHARE, SEED, Setting, arguments_of, name_of

FOLDER = "trials"


@dataclass(frozen=True)
class Trial:
    """`state` and `message` as `study.Told` has them; `record`: what a trial that is done says of itself."""

    name: str
    setting: Setting
    state: str
    message: str = ""
    record: RunRecord | None = None

    @property
    def measured(self) -> Measurement:
        """The file that its result is told by: TFLite, or the first."""
        measurements = self.record.measurements if self.record else {}
        return measurements.get(lead(measurements) or "", Measurement())

    @property
    def passed(self) -> bool:
        """Whether it meets all limits."""
        return self.record is not None and self.record.verdict.passed

    def values(self) -> tuple[float, float, float] | None:
        """Bytes, milliseconds and IoU; None where one of them was not measured."""
        found = self.measured
        if found.size_bytes is None or found.latency is None or found.iou is None:
            return None
        return float(found.size_bytes), found.latency.p50_ms, found.iou.mean

    @property
    def iou(self) -> Interval | None:
        return self.measured.iou


def job_of(
    setting: Setting,
    out: Path,
    given: Sequence[str],
    limits: Sequence[Limit],
    trusted: Sequence[str],
    cpus: int,
    gpus: int,
) -> Job:
    """A run that begins, or goes on where one was begun. `given`: what all trials are given, the model first, of which
    `trusted` is said anew when a run goes on."""
    folder = folder_of(setting, out)
    if (folder / "checkpoints" / "run.json").is_file():
        arguments = ("run", "--resume", str(folder), *trusted)
    else:
        limited = tuple(word for limit in limits for word in (BUDGET, limit.text))
        arguments = ("run", *given, *trusted, *arguments_of(setting), *limited, "--out", str(folder))
    return Job(name_of(setting), arguments, folder, cpus, gpus)


def folder_of(setting: Setting, out: Path) -> Path:
    return out / FOLDER / name_of(setting)


def finished(setting: Setting, out: Path, limits: Sequence[Limit]) -> RunRecord | None:
    """The record in its folder, of a run of these settings that came to its end; None: there is none."""
    folder = folder_of(setting, out)
    try:
        record = read_record(folder)
    except DataError:
        return None
    return record if _same(setting, limits, record) and (folder / MANIFEST).is_file() else None


def _same(setting: Setting, limits: Sequence[Limit], record: RunRecord) -> bool:
    recipe = record.recipe
    plan = recipe.get("plan", {})
    sizes = ["x".join(map(str, size)) for size in plan.get("input_sizes", [])]
    says = {
        BUDGET: recipe.get("budget") == [setting[BUDGET], *(limit.text for limit in limits)],
        SEED: str(recipe.get("seed")) == setting.get(SEED),
        MACS_SHARE: plan.get("macs_share") == float(setting.get(MACS_SHARE, "nan")),
        INPUT_SIZE: sizes == [setting.get(INPUT_SIZE)],
    }
    return all(says[flag] for flag in setting)
