"""RunRecord: everything that a run decided and measured."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compress.budget import Verdict
from compress.formats.artifact import Artifact
from compress.measure.parity import Parity
from compress.measure.values import Interval, Measurement
from compress.report.palette import palette_of
from compress.runtime.kernels import Kernels
from compress.runtime.layers import LayerTime


def plain(value: Any) -> Any:
    """What JSON can hold: paths become file names, and what is not finite becomes null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.name if isinstance(value, Path) else value


@dataclass(frozen=True)
class HistoryPoint:
    """IoU of the network while it was made, against the teacher's or the labels' masks on the images
    held out of training for choosing the best checkpoint."""

    stage: str  # "tune" (the heavy model), "cut", "repair", "between" (two cuts), "distil", "ptq", "qat"
    minutes: float  # of training so far; 0 before it starts
    iou: float
    loss: float | None = None


@dataclass(frozen=True)
class Source:
    """The file of the heavy model, by its name alone."""

    file: str
    sha256: str
    size_bytes: int
    parameters: int | None = None


@dataclass(frozen=True)
class Machine:
    """Where the files were measured. `load`: the load average when that began."""

    cpu: str = ""
    cores: int | None = None
    load: float | None = None


@dataclass(frozen=True)
class Data:
    """Counts of images to learn from, with masks (train) and without (unlabelled), and to measure on (val). Of those to
    learn from, `held_out` choose the best copy, and on `left_out` the teacher says nothing. None: not known.

    uncertainty  of the teacher, mean over the pixels to learn from, 0 to 1
    reference    what IoU is against: "labels" or "teacher"
    val_sha256   of the pixels to measure on
    range        values of more than 8 bits that became pixels 0 and 255
    """

    train: int | None = None
    val: int | None = None
    unlabelled: int | None = None
    held_out: int | None = None
    left_out: int | None = None
    uncertainty: float | None = None
    reference: str | None = None
    val_sha256: str | None = None
    range: tuple[float, float] | None = None

    def same_images(self, other: "Data") -> bool:
        """Whether both were surely measured on the same images, against the same kind of masks."""
        ours, theirs = ((data.val_sha256, data.reference) for data in (self, other))
        return bool(self.val_sha256) and ours == theirs


@dataclass(frozen=True)
class LayerSize:
    name: str
    before_bytes: int  # fp32 weights and bias of the heavy model
    after_bytes: int  # int8 weights, int32 bias and scales in the exported file
    before_channels: int
    after_channels: int


@dataclass(frozen=True)
class Trial:
    """A student that was trained for a short while, to choose one: IoU on the held-out images, bytes of its largest
    file, multiply-accumulates of an inference; how far its IoU is from that of the one that was taken."""

    name: str
    iou: float
    size_bytes: int
    macs: int
    taken: bool = False
    apart: Interval | None = None


@dataclass(frozen=True)
class Earlier:
    """What an earlier run of the same teacher measured, without its latency samples."""

    created: str
    data: Data
    measurements: dict[str, Measurement]


@dataclass(frozen=True)
class RunRecord:
    name: str
    version: str
    command: str
    created: str  # ISO 8601, UTC
    seed: int
    recipe: dict[str, Any]  # as it was written then, to be read by people: no later version need understand it
    classes: tuple[str, ...]
    source: Source
    tools: dict[str, str]  # package -> version
    machine: Machine
    data: Data
    predicted_bytes: int = 0
    layers: tuple[LayerSize, ...] = ()
    history: tuple[HistoryPoint, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    agreement: float | None = None  # share of mask pixels on which the two formats agree, on val
    parity: Parity | None = None
    measurements: dict[str, Measurement] = field(default_factory=dict)  # "teacher", then one per format
    verdict: Verdict = Verdict(())
    minutes: dict[str, float] = field(default_factory=dict)  # stage -> wall-clock minutes
    warnings: tuple[str, ...] = ()
    kernels: dict[str, Kernels] = field(default_factory=dict)  # by format: what each runtime runs it with
    layer_times: dict[str, tuple[LayerTime, ...]] = field(default_factory=dict)  # by format: onnx or ort
    controls: dict[str, Measurement] = field(default_factory=dict)  # by name: what else was made of the same teacher
    earlier: tuple[Earlier, ...] = ()  # oldest first
    multilabel: bool = False  # whether a pixel can have several of the classes
    trials: tuple[Trial, ...] = ()
    palette: tuple[str, ...] = ()  # "#rrggbb" of each class, "" of one that is only paler; older reports have none

    @property
    def colours(self) -> tuple[str, ...]:
        return self.palette or palette_of(self.classes, {}, self.multilabel)

    def to_json(self) -> dict[str, Any]:
        """Plain values for report.json."""
        document = plain(asdict(self))
        document["schema"] = 1
        document["verdict"] = plain(self.verdict.to_json())
        return document
