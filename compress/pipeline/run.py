"""The story, top to bottom: a heavy model goes in, measured files come out."""

import hashlib
import importlib.metadata
import io
import logging
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress.budget import TEACHER, Budget, judge
from compress.data.folders import Dataset
from compress.errors import BudgetError
from compress.files import cache_folder, check_writable, write_whole
from compress.formats.artifact import Artifact
from compress.formats.npz import write_graph
from compress.formats.onnx import to_onnx
from compress.graph.channels import find_groups
from compress.graph.network import Network
from compress.judge.verify import GRAPH, compare, describe_parity
from compress.load.model import Trained, load
from compress.machine import cores
from compress.measure.evaluate import Evaluation, LabelledImages, agreement, measure
from compress.measure.values import Measurement
from compress.pipeline.checkpoints import Journal, Start, started
from compress.pipeline.controls import control_files, small_network
from compress.pipeline.pictures import Photographs, open_photographs, pictures_of_photographs, pictures_of_validation
from compress.pipeline.student import compress_network, tuned
from compress.pipeline.teaching import Material, dataset_of, prepare, taught_by, teachers_of
from compress.prune.cost import CHANNEL_BYTES
from compress.prune.widths import check_budget
from compress.quantize.convert import float_graph, quantized_graph
from compress.quantize.placement import check_keep_float
from compress.recipe import Recipe, restored_recipe
from compress.release.export import exported
from compress.report.pictures import Picture
from compress.report.read import earlier_runs
from compress.report.record import LayerSize, RunRecord
from compress.report.write import write_report
from compress.runtime.kernels import KERNELS
from compress.runtime.layers import SUFFIXES, LayerTime, layer_times
from compress.runtime.session import describe, open_model
from compress.train.loop import Schedule

log = logging.getLogger("compress")

COMPARED = 50
DURATION = {"minutes", "steps"}


def run(
    recipe: Recipe,
    model: Path,
    out: Path,
    *,
    command: str = "",
    trust_pickle: bool = False,
    resume: bool = False,
) -> RunRecord:
    """Compress the model in `model` as the recipe says and write files and report to the folder `out`.

    Every finished stage is kept in `out`/checkpoints, training at each check; with `resume` the run there goes on from
    what it has. Raises a CompressError, and writes nothing, when the model, the data, the budget or the folder cannot
    be used.
    """
    budget = Budget.parse(recipe.budget, [TEACHER])
    size_bytes = budget.size_bytes
    if size_bytes is None:
        raise BudgetError("no budget: give one, such as --budget 4MB")
    start = Start(str(model.resolve()), recipe.model_dump(mode="json"), str(recipe.folder.resolve()), command)
    journal = Journal(out / "checkpoints", start, resume)
    cache = cache_folder()
    with journal.stage("load"):
        check_writable(out)
        heavy = load(model, recipe, trust_pickle)
        check_keep_float(heavy.network, recipe.keep_float)
        check_budget(heavy.network, find_groups(heavy.network), size_bytes)
        teachers = teachers_of(recipe, heavy, trust_pickle)
        small = small_network(recipe, trust_pickle) if recipe.controls.run else None
        dataset = dataset_of(recipe)
        shown = open_photographs(recipe.report.pictures, recipe.model.input_size) if recipe.report.pictures else None
        torch.manual_seed(recipe.seed)

    with journal.stage("teacher"):
        material = prepare(teachers, dataset, recipe, cache)
    described = recipe.model_dump_json(exclude={"measure": True, "budget": True, "report": True, "train": DURATION})
    journal.opened(f"{heavy.sha256} {material.key} {described} {budget}")

    if Schedule(*recipe.schedule("tune")):
        heavy = tuned(heavy, material.lesson, recipe, journal)
        with journal.stage("tuned teacher"):
            material = taught_by(heavy.network, material, cache)
    lesson = material.lesson
    student = compress_network(heavy, recipe, budget, lesson, journal)

    with journal.stage("export"):
        graph = quantized_graph(student.quantized, recipe.name)
        artifacts = exported(graph, recipe, out)
        size = "x".join(map(str, recipe.model.input_size))
        log.info("export: the files read one image of %s, as model.input_size says, and no other size", size)
        write_graph(graph, out / GRAPH)
        _golden(shown.pixels[0] if shown else material.images[0], artifacts, out)

    with journal.stage("verify"):
        parity = compare(graph, {artifact.format: artifact.path for artifact in artifacts}, material.images[:COMPARED])
        log.info("%s", describe_parity(parity))

    controls: dict[str, Artifact] = {}
    if recipe.controls.run:
        with journal.stage("controls"):
            controls = control_files(heavy, small, recipe, student.plan.predicted_bytes, lesson, journal, resume)

    with journal.stage("measure"):
        references = {"teacher": _float_file(teachers[0].model, recipe, cache)}
        if heavy.sha256 not in {teacher.model.sha256 for teacher in teachers}:
            references["source"] = _float_file(heavy, recipe, cache)
        measurements, answers, machine = _measure(
            {**references, **controls}, artifacts, dataset, material.images, recipe
        )
        pictures = _pictures(shown, dataset, references["teacher"], artifacts, answers)

    pairs = zip(artifacts, artifacts[1:])
    record = RunRecord(
        **_origin(recipe, heavy, dataset, material, command),
        predicted_bytes=student.plan.predicted_bytes,
        layers=_layers(heavy.network, student.network),
        history=tuple(journal.moments),
        artifacts=tuple(artifacts),
        agreement=min((agreement(answers[a.format], answers[b.format]) for a, b in pairs), default=None),
        parity=asdict(parity),
        kernels={a.format: KERNELS[a.format](a.path, graph) for a in artifacts if a.format in KERNELS},
        measurements={name: found for name, found in measurements.items() if name not in controls},
        controls={name: measurements[name] for name in controls},
        verdict=judge({a.format: measurements[a.format] for a in artifacts}, budget),
        machine=machine,
        minutes=journal.minutes,
        warnings=dataset.warnings,
        layer_times=_profiled(artifacts),
        earlier=earlier_runs(out, heavy.sha256),
    )
    write_report(record, pictures, out)
    return record


def resume(out: Path, *, minutes: float | None = None, trust_pickle: bool = False) -> RunRecord:
    """Go on with the run whose output folder is `out`, from its last checkpoint, to the result that it would have had
    (to the same bits where the recipe counts steps, on a processor); or train on until it has been trained for as many
    `minutes`, finished or not. Raises RecipeError where there is none."""
    start = started(out)
    recipe = restored_recipe(start.recipe, Path(start.recipe_folder)).with_flags(minutes=minutes)
    return run(recipe, Path(start.model), out, command=start.command, trust_pickle=trust_pickle, resume=True)


def _origin(recipe: Recipe, heavy: Trained, dataset: Dataset, material: Material, command: str) -> dict[str, Any]:
    """What went into a run, as its record states it."""
    lesson = material.lesson
    return {
        "name": recipe.name,
        "version": recipe.version,
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": recipe.seed,
        "recipe": _public(recipe),
        "classes": heavy.classes,
        "source": {
            "file": heavy.path.name,
            "sha256": heavy.sha256,
            "size_bytes": heavy.size_bytes,
            "parameters": heavy.parameters,
        },
        "tools": _tools(),
        "data": {
            "train": len(dataset.train),
            "val": len(dataset.val),
            "unlabelled": len(dataset.unlabelled),
            "held_out": len(lesson.held_out),
            "left_out": len(lesson.left_out),
            "doubt": round(float(np.mean([doubt.mean() for doubt in lesson.doubt])) / 255, 4),
            "reference": dataset.reference,
            "val_sha256": hashlib.sha256(material.images.tobytes()).hexdigest(),
        },
    }


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


def _float_file(teacher: Trained, recipe: Recipe, cache: Path) -> Artifact:
    """A model as fp32 ONNX, in the cache."""
    path = cache / f"teacher-{teacher.sha256[:16]}-{recipe.model.output}.onnx"
    graph = float_graph(teacher.network, recipe.name)
    if not path.exists():
        to_onnx(graph, path)
    image = teacher.network.input.attrs
    return describe(
        path,
        mean=(float(image.zero_point),) * 3,
        std=(1 / image.scale,) * 3,
        activation=graph.operators[-1].op,
    )


def _measure(
    references: dict[str, Artifact],
    artifacts: list[Artifact],
    dataset: Dataset,
    images: np.ndarray,
    recipe: Recipe,
) -> tuple[dict[str, Measurement], dict[str, Evaluation], dict[str, Any]]:
    """Bytes, latency and IoU of the files, the teacher first, from the files alone."""
    machine = {"cpu": _cpu(), "cores": cores(), "load": round(os.getloadavg()[0], 2)}
    files = {**references, **{artifact.format: artifact for artifact in artifacts}}
    labelled = LabelledImages.of(dataset, lambda size: images)
    found = measure(files, labelled, against="teacher", seconds=recipe.measure.seconds)
    measurements = {name: each.measurement for name, each in found.items()}
    return measurements, {name: each.evaluation for name, each in found.items() if each.evaluation}, machine


def _pictures(
    shown: Photographs | None,
    dataset: Dataset,
    teacher: Artifact,
    artifacts: list[Artifact],
    answers: dict[str, Evaluation],
) -> list[Picture]:
    """The images of the report, with the masks of the TFLite file, or of the first one."""
    student = next((each for each in artifacts if each.format == "tflite"), artifacts[0])
    if shown:
        return pictures_of_photographs(shown, teacher, student, dataset.classes)
    return pictures_of_validation(dataset, answers["teacher"], answers[student.format])


def _profiled(artifacts: list[Artifact]) -> dict[str, tuple[LayerTime, ...]]:
    """Latency by layer of the first file that onnxruntime runs."""
    profilable = [artifact for artifact in artifacts if artifact.path.suffix in SUFFIXES]
    return {artifact.format: layer_times(artifact.path) for artifact in profilable[:1]}


def _layers(heavy: Network, student: Network) -> tuple[LayerSize, ...]:
    layers = []
    for node in student.weighted():
        before, after = heavy.weight(node.name), student.weight(node.name)
        wide, narrow = heavy.by_name[node.name].out_channels(before), node.out_channels(after)
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
