"""The story, top to bottom: a heavy model goes in, measured files come out."""

import hashlib
import importlib.metadata
import io
import logging
import os
import platform
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch

from compress.album import Album, open_album, pictures_of_album, pictures_of_validation
from compress.budget import Budget, judge
from compress.data.folders import Dataset, open_dataset, open_unlabelled
from compress.data.images import read_mask
from compress.data.packed import Packed, cache_folder, pack_images, pack_masks
from compress.errors import BudgetError, DataError, ExportError
from compress.formats.artifact import Artifact, write_whole
from compress.formats.export import EXPORTERS
from compress.formats.graph import write_graph
from compress.formats.kernels import KERNELS
from compress.formats.metadata import Card
from compress.formats.onnx import to_onnx
from compress.formats.runtime import describe, open_model
from compress.load.model import Trained, load
from compress.load.trace import fold_normalisation
from compress.measure.accuracy import Evaluation, agreement, evaluate
from compress.measure.latency import take_turns
from compress.measure.layers import SUFFIXES, LayerTime, layer_times
from compress.measure.statistics import bootstrap_mean, paired_difference, speedup
from compress.measure.values import Measurement
from compress.network import Network, out_channels
from compress.prune.cut import cut
from compress.prune.groups import Channels, find_groups
from compress.prune.plan import CHANNEL_BYTES, PrunePlan, check_budget, choose, measure_damage
from compress.prune.repair import repair
from compress.quantize.calibration import calibrate, correct_biases
from compress.quantize.convert import float_graph, quantized_graph
from compress.quantize.graph import QuantizedGraph
from compress.quantize.placement import place
from compress.quantize.training import QuantizedNetwork
from compress.recipe import Recipe
from compress.report.pictures import Picture
from compress.report.read import earlier_runs
from compress.report.record import LayerSize, Moment, RunRecord
from compress.report.write import write_report
from compress.train.loop import Lesson, fit, held_out_iou
from compress.train.targets import shrink, teacher_features, teacher_maps
from compress.verify import GRAPH, compare, describe_parity

log = logging.getLogger("compress")
Net = TypeVar("Net", bound=Network)

COMPARED = 50
CALIBRATION = 32
PERCENTILES = (99.9, 99.99, 100.0)
CORRECTIONS = 4
PLANNED = 0.95
"""Share of the budget that a plan must use at least."""


def run(recipe: Recipe, model: Path, out: Path, *, command: str = "", trust_pickle: bool = False) -> RunRecord:
    """Compress the model in `model` as the recipe says and write files and report to the folder `out`.

    Raises a CompressError, and writes nothing, when the model, the data, the budget or the folder cannot be used.
    Checkpoints of finished stages are in `out`/checkpoints, also after an interruption.
    """
    budget = Budget.parse(recipe.budget)
    if budget.size_bytes is None:
        raise BudgetError("no budget: give one, such as --budget 4MB")
    diary = _Diary()
    cache = cache_folder()
    with diary.stage("load"):
        _check_writable(out)
        teacher = load(model, recipe, trust_pickle)
        check_budget(teacher.network, find_groups(teacher.network), budget.size_bytes)
        dataset = _dataset(recipe)
        album = open_album(recipe.report.pictures, recipe.model.input_size) if recipe.report.pictures else None
        torch.manual_seed(recipe.seed)

    with diary.stage("teacher"):
        lesson, images = _lesson(teacher, dataset, recipe, cache)

    with diary.stage("plan"):
        channels, plan, student = _plan(teacher, recipe, budget.size_bytes, lesson)
        out.mkdir(parents=True, exist_ok=True)
    diary.moment("cut", held_out_iou(student, lesson))

    with diary.stage("repair"):
        pixels = _random_pixels(lesson, recipe.repair.images, recipe.repair.size, recipe.seed)
        student = repair(teacher.network, student, channels, plan.kept, pixels)
        _checkpoint(student, out, "repaired")
    diary.moment("repair", held_out_iou(student, lesson))

    if recipe.train.minutes:
        with diary.stage("features"):
            lesson = _with_features(lesson, teacher, channels, plan, recipe)
        with diary.stage("distil"):
            student = _fit(student, lesson, recipe, "distil", diary, out)

    with diary.stage("ptq"):
        quantized, iou = _calibrated(student, lesson, recipe)
    diary.moment("ptq", iou)
    if recipe.qat_minutes:
        with diary.stage("qat"):
            quantized = _fit(quantized, lesson, recipe, "qat", diary, out)

    with diary.stage("export"):
        graph = quantized_graph(quantized, recipe.name)
        artifacts = _export(graph, recipe, out)
        write_graph(graph, out / GRAPH)
        _golden(album.pixels[0] if album else images[0], artifacts, out)

    with diary.stage("verify"):
        parity = compare(graph, {artifact.format: artifact.path for artifact in artifacts}, images[:COMPARED])
        log.info("%s", describe_parity(parity))

    with diary.stage("measure"):
        heavy = _teacher_file(teacher, recipe, cache)
        measurements, answers, machine = _measure(heavy, artifacts, dataset, images, recipe)
        pictures = _shown(album, dataset, heavy, artifacts, answers)

    pairs = zip(artifacts, artifacts[1:])
    record = RunRecord(
        **_origin(recipe, model, teacher, dataset, images, lesson, command),
        predicted_bytes=plan.predicted_bytes,
        layers=_layers(teacher.network, student),
        history=tuple(diary.moments),
        artifacts=tuple(artifacts),
        agreement=min((agreement(answers[a.format], answers[b.format]) for a, b in pairs), default=None),
        parity=asdict(parity),
        kernels={a.format: KERNELS[a.format](a.path) for a in artifacts if a.format in KERNELS},
        measurements=measurements,
        verdict=judge({artifact.format: artifact.size_bytes for artifact in artifacts}, budget),
        machine=machine,
        minutes=diary.minutes,
        warnings=dataset.warnings,
        layer_times=_profiled(artifacts),
        earlier=earlier_runs(out, teacher.sha256),
    )
    write_report(record, pictures, out)
    return record


def _origin(
    recipe: Recipe,
    model: Path,
    teacher: Trained,
    dataset: Dataset,
    images: np.ndarray,
    lesson: Lesson,
    command: str,
) -> dict[str, Any]:
    """What went into a run, as its record states it."""
    return {
        "name": recipe.name,
        "version": recipe.version,
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": recipe.seed,
        "recipe": _public(recipe),
        "classes": teacher.classes,
        "source": {
            "file": model.name,
            "sha256": teacher.sha256,
            "size_bytes": teacher.size_bytes,
            "parameters": teacher.parameters,
        },
        "tools": _tools(),
        "data": {
            "train": len(dataset.train),
            "val": len(dataset.val),
            "unlabelled": len(dataset.unlabelled),
            "held_out": len(lesson.held_out),
            "reference": dataset.reference,
            "val_sha256": hashlib.sha256(images.tobytes()).hexdigest(),
        },
    }


@dataclass
class _Diary:
    """How long the stages took, and the IoU on the held-out images along the way."""

    minutes: dict[str, float] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    trained: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        log.info("%s ...", name)
        start = time.monotonic()
        yield
        self.minutes[name] = (time.monotonic() - start) / 60

    def moment(self, stage: str, iou: float, minutes: float = 0.0, loss: float | None = None) -> None:
        log.info("%s: IoU %.4f on the held-out images", stage, iou)
        self.moments.append(Moment(stage, self.trained + minutes, iou, loss))


def _check_writable(out: Path) -> None:
    """The folder that exists already must take files; `out` itself is made when there is something to keep."""
    folder = out
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ExportError(f"{out}: cannot be written; choose another folder with --out")


def _dataset(recipe: Recipe) -> Dataset:
    classes, data = recipe.model.classes, recipe.data
    if data.folder:
        return open_dataset(data.folder, classes, data.unlabelled)
    if data.unlabelled:
        return open_unlabelled(data.unlabelled, classes, recipe.seed)
    raise DataError("no images: give --data DIR with train/ and val/, or --unlabelled DIR with photographs")


def _lesson(teacher: Trained, dataset: Dataset, recipe: Recipe, cache: Path) -> tuple[Lesson, np.ndarray]:
    """What the student learns from, and the images to measure on: uint8 [N, H, W, 3]."""
    size = recipe.model.input_size
    samples = [*dataset.train, *dataset.unlabelled]
    packed = pack_images([sample.image for sample in samples], size, cache)
    masks = [sample.mask for sample in dataset.train if sample.mask]
    labels = pack_masks(masks, size, cache, dataset.object_is_255)
    maps = teacher_maps(teacher.network, packed, f"{teacher.sha256} {recipe.model} {recipe.preprocess}", cache)
    candidates = range(len(masks) or len(samples))
    count = min(48, len(samples) // 5, len(candidates))
    held_out = sorted(random.Random(recipe.seed).sample(candidates, max(1, count)))
    lesson = Lesson(packed.array, maps, labels.array, None, tuple(held_out), recipe.train.size, len(teacher.classes))
    val: Packed = pack_images([sample.image for sample in dataset.val], size, cache)
    return lesson, val.array


def _random_pixels(lesson: Lesson, count: int, size: tuple[int, ...], seed: int) -> torch.Tensor:
    """Images to learn from at `size`, uint8 [count or fewer, H, W, 3]."""
    held_out = set(lesson.held_out)
    free = [i for i in range(len(lesson.pixels)) if i not in held_out] or list(lesson.held_out)
    picked = random.Random(seed).sample(free, min(count, len(free)))
    return torch.cat([shrink(torch.from_numpy(lesson.pixels[i : i + 1].copy()), (size[0], size[1])) for i in picked])


def _plan(teacher: Trained, recipe: Recipe, budget_bytes: int, lesson: Lesson) -> tuple[Channels, PrunePlan, Network]:
    """Channels, the plan, and the cut student; planned once more where the real file is not what was predicted."""
    heavy = teacher.network
    pixels = _random_pixels(lesson, recipe.plan.images, recipe.plan.size, recipe.seed + 1)
    damage = measure_damage(heavy, find_groups(heavy), [heavy.real(one[None]) for one in pixels])
    base = fold_normalisation(heavy)
    channels = find_groups(base)
    target, best = budget_bytes, None
    for _ in range(CORRECTIONS):
        plan = choose(base, channels, damage, target, recipe.plan.macs_share)
        student = cut(base, channels, plan.kept)
        real = _exported_bytes(student, recipe)
        log.info("plan: %s bytes predicted, %s in the largest file", f"{plan.predicted_bytes:,}", f"{real:,}")
        if real <= budget_bytes and (best is None or real > best[0].predicted_bytes):
            best = PrunePlan(plan.kept, real), student
        if PLANNED * budget_bytes <= real <= budget_bytes:
            break
        target += budget_bytes - real
    if best is None:
        raise BudgetError(f"no student fits in {budget_bytes:,} bytes: the nearest has {real:,}")
    return channels, *best


def _exported_bytes(student: Network, recipe: Recipe) -> int:
    """Size of the largest exported file; it does not depend on the weights' values."""
    placement = place(student)
    ranges = dict.fromkeys(set(placement.group_of.values()) - set(placement.fixed), (0.0, 1.0))
    graph = quantized_graph(QuantizedNetwork(student, ranges), recipe.name)
    with TemporaryDirectory(prefix="compress-") as folder:
        return max(artifact.size_bytes for artifact in _export(graph, recipe, Path(folder)))


def _with_features(lesson: Lesson, teacher: Trained, channels: Channels, plan: PrunePlan, recipe: Recipe) -> Lesson:
    free = [i for i in range(len(lesson.pixels)) if i not in set(lesson.held_out)]
    picked = random.Random(recipe.seed).sample(free, min(recipe.train.features, len(free)))
    if not picked:
        return lesson
    features = teacher_features(teacher.network, channels, plan.kept, lesson.pixels, picked, lesson.size)
    return Lesson(lesson.pixels, lesson.maps, lesson.labels, features, lesson.held_out, lesson.size, lesson.classes)


def _calibrated(student: Network, lesson: Lesson, recipe: Recipe) -> tuple[QuantizedNetwork, float]:
    """The student with int8 ranges from real images: those of the percentile that does best on the held-out images,
    biases corrected; and its IoU there."""
    sample = _random_pixels(lesson, CALIBRATION, lesson.pixels.shape[1:3], recipe.seed)
    images = [student.real(one[None]) for one in sample]
    tried = []
    for percentile in PERCENTILES:
        quantized = QuantizedNetwork(student, calibrate(student, images, percentile))
        correct_biases(quantized, student, torch.cat(images[:8]))
        tried.append((held_out_iou(quantized, lesson), percentile, quantized))
    iou, percentile, best = max(tried, key=lambda attempt: attempt[0])
    log.info("ptq: ranges hold %s %% of an image's values", percentile)
    return best, iou


def _fit(net: Net, lesson: Lesson, recipe: Recipe, stage: str, diary: _Diary, out: Path) -> Net:
    train = recipe.train
    allowed = recipe.qat_minutes if stage == "qat" else train.minutes - recipe.qat_minutes

    def on_check(best: Net, minutes: float, iou: float, loss: float) -> None:
        diary.moment(stage, iou, minutes, loss)
        _checkpoint(best, out, stage)

    best, _ = fit(
        net,
        lesson,
        minutes=allowed,
        batch=train.batch,
        learning_rate=train.qat_learning_rate if stage == "qat" else train.learning_rate,
        seed=recipe.seed,
        desc=stage,
        on_check=on_check,
    )
    diary.trained = diary.moments[-1].minutes
    return best


def _checkpoint(net: Network, out: Path, name: str) -> None:
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(net.to_state(), buffer)
    write_whole(out / "checkpoints" / f"{name}.pt", buffer.getvalue())


def _export(graph: QuantizedGraph, recipe: Recipe, folder: Path) -> list[Artifact]:
    card = Card(
        recipe.name, recipe.version, recipe.description, recipe.author, recipe.licence, tuple(recipe.model.classes)
    )
    artifacts = []
    for name in recipe.formats:
        path = folder / f"model.{name}"
        EXPORTERS[name](graph, path, card=card)
        artifacts.append(describe(path, activation=graph.operators[-1].op))
    return artifacts


def _golden(image: np.ndarray, artifacts: list[Artifact], out: Path) -> None:
    """golden.npz: `pixels`, uint8 [H, W, 3], and for each format the output that the file gives for it here, in the
    file's own shape and dtype, so that an app's test can assert the same."""
    answers: dict[str, Any] = {}
    for artifact in artifacts:
        session = open_model(artifact.path)
        answers[artifact.format] = session.run(session.prepare(image))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, pixels=image, **answers)
    write_whole(out / "golden.npz", buffer.getvalue())


def _teacher_file(teacher: Trained, recipe: Recipe, cache: Path) -> Artifact:
    """The heavy model as fp32 ONNX, in the cache."""
    path = cache / f"teacher-{teacher.sha256[:16]}-{recipe.model.output}.onnx"
    graph = float_graph(teacher.network, recipe.name)
    if not path.exists():
        to_onnx(graph, path)
    image = teacher.network.input.attrs
    return describe(
        path,
        mean=(float(image["zero_point"]),) * 3,
        std=(1 / image["scale"],) * 3,
        activation=graph.operators[-1].op,
    )


def _measure(
    heavy: Artifact, artifacts: list[Artifact], dataset: Dataset, images: np.ndarray, recipe: Recipe
) -> tuple[dict[str, Measurement], dict[str, Evaluation], dict[str, Any]]:
    """Bytes, latency and IoU of the files, the teacher first, from the files alone."""
    machine = {"cpu": _cpu(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}
    files = {"teacher": heavy, **{artifact.format: artifact for artifact in artifacts}}
    latency = take_turns({n: artifact.path for n, artifact in files.items()}, seconds=recipe.measure.seconds)
    labels = None
    if dataset.reference == "labels":
        labels = [read_mask(sample.mask, dataset.object_is_255) for sample in dataset.val if sample.mask]
    classes = len(recipe.model.classes)
    answers: dict[str, Evaluation] = {}
    measurements: dict[str, Measurement] = {}
    for name, artifact in files.items():
        reference = list(answers["teacher"].predictions) if labels is None and answers else labels
        answers[name] = evaluate(artifact, images, reference, classes)
        measurements[name] = Measurement(
            size_bytes=artifact.size_bytes,
            latency=latency[name],
            iou=bootstrap_mean(answers[name].iou),
            per_image_iou=answers[name].iou,
            speedup=None if name == "teacher" else speedup(latency["teacher"], latency[name]),
            iou_drop=None if name == "teacher" else paired_difference(answers["teacher"].iou, answers[name].iou),
        )
    return measurements, answers, machine


def _shown(
    album: Album | None, dataset: Dataset, heavy: Artifact, artifacts: list[Artifact], answers: Mapping[str, Evaluation]
) -> list[Picture]:
    """The images of the report, with the masks of the TFLite file, or of the first one."""
    student = next((each for each in artifacts if each.format == "tflite"), artifacts[0])
    if album:
        return pictures_of_album(album, heavy, student, len(dataset.classes))
    return pictures_of_validation(dataset, answers["teacher"], answers[student.format])


def _profiled(artifacts: list[Artifact]) -> dict[str, tuple[LayerTime, ...]]:
    """Latency by layer of the first file that onnxruntime runs."""
    profilable = [artifact for artifact in artifacts if artifact.path.suffix in SUFFIXES]
    return {artifact.format: layer_times(artifact.path) for artifact in profilable[:1]}


def _layers(heavy: Network, student: Network) -> tuple[LayerSize, ...]:
    layers = []
    for node in student.convs():
        before, after = heavy.weight(node.name), student.weight(node.name)
        wide, narrow = out_channels(heavy.by_name[node.name], before), out_channels(node, after)
        layers.append(
            LayerSize(node.name, 4 * (before.numel() + wide), after.numel() + CHANNEL_BYTES * narrow, wide, narrow)
        )
    return tuple(layers)


def _public(recipe: Recipe) -> dict[str, object]:
    """The recipe as it went into the run; folders by name alone, since a report travels."""
    document = recipe.model_dump(mode="json")
    for section in ("data", "report"):
        document[section] = {key: Path(value).name if value else None for key, value in document[section].items()}
    return document


def _tools() -> dict[str, str]:
    names = ["compress-mobile", "torch", "onnx", "onnxruntime", "ai-edge-litert", "numpy"]
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
