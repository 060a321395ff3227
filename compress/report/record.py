"""RunRecord: everything that a run decided and measured."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compress.budget import Verdict
from compress.formats.artifact import Artifact
from compress.measure.values import Measurement
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
class Moment:
    """A point of the run's history: IoU against the teacher's or the labels' masks on the images
    held out of training for choosing the best checkpoint."""

    stage: str  # "tune" (the heavy model), "cut", "repair", "between" (two cuts), "distil", "ptq", "qat"
    minutes: float  # of training so far; 0 before it starts
    iou: float
    loss: float | None = None


@dataclass(frozen=True)
class LayerSize:
    name: str
    before_bytes: int  # fp32 weights and bias of the heavy model
    after_bytes: int  # int8 weights, int32 bias and scales in the exported file
    before_channels: int
    after_channels: int


@dataclass(frozen=True)
class Earlier:
    """What an earlier run of the same teacher measured, without its latency samples."""

    created: str
    data: dict[str, Any]
    measurements: dict[str, Measurement]


@dataclass(frozen=True)
class RunRecord:
    name: str
    version: str
    command: str
    created: str  # ISO 8601, UTC
    seed: int
    recipe: dict[str, Any]
    classes: tuple[str, ...]
    source: dict[str, Any]  # file, sha256, size_bytes, parameters
    tools: dict[str, str]  # package -> version
    machine: dict[str, Any]  # cpu, cores, load average at the start of measuring
    data: dict[str, Any]  # train, val, unlabelled: counts; reference: "labels" or "teacher"; val_sha256 of the images
    predicted_bytes: int
    layers: tuple[LayerSize, ...]
    history: tuple[Moment, ...]
    artifacts: tuple[Artifact, ...]
    agreement: float | None  # share of mask pixels on which the two formats agree, on val
    parity: dict[str, Any] | None  # compress.judge.verify.Parity: stored integers, layer by layer, end to end
    measurements: dict[str, Measurement]  # "teacher", then one per format
    verdict: Verdict
    minutes: dict[str, float] = field(default_factory=dict)  # stage -> wall-clock minutes
    warnings: tuple[str, ...] = ()
    kernels: dict[str, Kernels] = field(default_factory=dict)  # by format: what each runtime runs it with
    layer_times: dict[str, tuple[LayerTime, ...]] = field(default_factory=dict)  # by format: onnx or ort
    controls: dict[str, Measurement] = field(default_factory=dict)  # by name: what else was made of the same teacher
    earlier: tuple[Earlier, ...] = ()  # oldest first

    def to_json(self) -> dict[str, Any]:
        """Plain values for report.json."""
        document = plain(asdict(self))
        document["schema"] = 1
        document["verdict"] = plain(self.verdict.to_json())
        return document
