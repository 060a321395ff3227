"""What runs leave, without the runs: reports of chosen figures, and an executor that writes them."""

import json
from collections.abc import Callable
from pathlib import Path

from compress.budget import Budget, judge
from compress.formats.artifact import Artifact, IOSpec
from compress.measure.values import Interval, Latency, Measurement
from compress.report.record import Data, Machine, RunRecord, Source
from compress.sweep.executor import Ended, Job
from compress.sweep.space import Axis, Space

SPEC = IOSpec("image", (1, 8, 8, 3), "uint8", "NHWC")


def record(
    size: int, ms: float, ious: tuple[float, ...], limits: tuple[str, ...] = ("4MB",), machine: Machine | None = None
) -> RunRecord:
    """Of a run whose TFLite file has these bytes, milliseconds, and IoU on each of some images."""
    mean = sum(ious) / len(ious)
    turns = tuple(ms * (1 + turn / 1000) for turn in range(10))
    student = Measurement(
        size, Latency(ms, ms, turns, 2, "LiteRT", 10), Interval(mean, mean - 0.01, mean + 0.01), per_image_iou=ious
    )
    return RunRecord(
        name="n",
        version="1.0.0",
        command="",
        created="2026-01-01T00:00:00+00:00",
        seed=0,
        recipe={"budget": list(limits), "seed": 0, "plan": {"macs_share": 0.5, "input_sizes": []}},
        classes=("a", "b"),
        source=Source("n.pt", "", 90_000_000),
        tools={},
        machine=machine or Machine("a processor", 4, 0.1),
        data=Data(val_sha256="of the images", reference="labels"),
        artifacts=(Artifact(Path("model.tflite"), "tflite", "", size, SPEC, SPEC),),
        measurements={"tflite": student},
        verdict=judge({"tflite": student}, Budget.parse(limits)),
    )


def flag_of(job: Job, flag: str) -> list[str]:
    return [value for name, value in zip(job.arguments, job.arguments[1:]) if name == flag]


def written(job: Job) -> Ended:
    """A run within budget: of half its budget's bytes, and the larger the better."""
    budget = flag_of(job, "--budget")
    size = int(float(budget[0].removesuffix("MB")) * 500_000)
    found = record(size, size / 1e5, (0.8 + size / 1e8,) * 10, tuple(budget))
    seed, share = flag_of(job, "--seed") or ["0"], flag_of(job, "--macs-share") or ["0.5"]
    found.recipe.update(seed=int(seed[0]), plan={"macs_share": float(share[0]), "input_sizes": []})
    leave(found, job.folder)
    return Ended(job.name, 0 if found.verdict.passed else 1, "")


def leave(found: RunRecord, folder: Path) -> None:
    """What a sweep reads of the folder of a run that came to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(found.to_json()))
    (folder / "manifest.json").write_text("{}")


class Here:
    """Two jobs at once, each done when it is waited for, as `does` says."""

    def __init__(self, does: Callable[[Job], Ended] = written, slots: int = 2):
        self.does, self.count = does, slots
        self.jobs: list[Job] = []
        self.open: list[Job] = []
        self.closed = False

    def slots(self) -> int:
        return self.count

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self.open.append(job)
        assert len(self.open) <= self.count

    def wait(self, seconds: float) -> list[Ended]:
        return [self.does(self.open.pop(0))]

    def close(self) -> None:
        self.closed = True


def grid(*budgets: str) -> Space:
    return Space((Axis("--budget", budgets),), len(budgets))
