"""The story, top to bottom: a heavy model goes in, measured files come out."""

import hashlib
import logging
import shlex
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress.budget import TEACHER, Budget, judge
from compress.data.folders import Dataset
from compress.data.images import Reading
from compress.errors import BudgetError, RecipeError
from compress.files import alone_in, cache_folder, cached, check_writable, identity
from compress.formats.artifact import Artifact
from compress.formats.npz import write_graph
from compress.formats.onnx import to_onnx
from compress.graph.network import Network
from compress.graph.quantized import QuantizedGraph
from compress.judge.verify import GRAPH, compare, describe_parity
from compress.load.class_map import tells_labels_apart
from compress.load.model import Segmenter, Trained, load_with_original
from compress.load.sizes import with_fitting_sizes
from compress.machine import busy, cores, load_now, prepare_process, processor, versions
from compress.measure.evaluate import Evaluation, LabelledImages, agreement, measure
from compress.measure.known import Known
from compress.measure.latency import advice
from compress.measure.statistics import few_images
from compress.measure.values import Measurement
from compress.pipeline.checkpoints import FOLDER, RUN, Checkpoints, Start, started
from compress.pipeline.controls import Small, control_files, small_network
from compress.pipeline.forecast import Forecast, Speed, forecast
from compress.pipeline.pictures import Photographs, open_photographs, pictures_of_photographs, pictures_of_validation
from compress.pipeline.plain_torch import write_student
from compress.pipeline.prepare import (
    Prepared,
    as_masks_tell,
    load_teachers,
    open_data,
    prepare,
    real_pictures,
    with_teacher,
)
from compress.pipeline.student import StudentSettings, compress_network, tune
from compress.prune.cost import CHANNEL_BYTES
from compress.prune.widths import check_budget
from compress.quantize.convert import float_graph, quantized_graph
from compress.quantize.placement import check_keep_float
from compress.recipe import Recipe, restored_recipe
from compress.release.export import FileSettings, export
from compress.release.golden import write_golden
from compress.report.doubts import about_teacher, doubts
from compress.report.palette import palette_of
from compress.report.pictures import Picture
from compress.report.read import earlier_runs
from compress.report.record import Data, LayerSize, Machine, RunRecord, Source
from compress.report.write import write_report
from compress.runtime.kernels import Kernels
from compress.runtime.layers import SUFFIXES, LayerTime, layer_times
from compress.runtime.local import Child, describe_in_child
from compress.train.examples import teacher_iou

log = logging.getLogger("compress")

HISTORY = "history.csv"
COMPARED = 50
COMPARED_WITH_MODULE = 2
DURATION = {"minutes", "steps"}
_FLOAT_FILE = 1  # raised whenever the same network gives another fp32 file


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
    be used, or another run writes there.
    """
    prepare_process()
    budget = budget_of(recipe)
    check_writable(out)
    if (others := busy()) is not None:
        log.warning("%s", others)
    start = Start(str(model.resolve()), recipe.model_dump(mode="json"), str(recipe.folder.resolve()), command)
    with alone_in(out / FOLDER, out):
        checkpoints = Checkpoints(out / FOLDER, start, resume, out / HISTORY)
        return _run(recipe, budget, model, out, checkpoints, trust_pickle)


@dataclass(frozen=True, eq=False)
class Loaded:
    """All that a run reads before its first stage. `fitting`: its recipe with the sizes that the network takes."""

    source: Trained
    teachers: list[Trained]
    small: Small | None
    dataset: Dataset
    shown: Photographs | None
    fitting: Recipe
    settings: StudentSettings

    def foretold(self) -> Forecast:
        own = self.source.identity in {teacher.identity for teacher in self.teachers}
        speed = Speed.of(self.source.network)
        return forecast(self.fitting, speed, self.dataset, len(self.teachers), 1 if own else 2)


def loaded(recipe: Recipe, budget: Budget, model: Path, trust_pickle: bool = False) -> Loaded:
    """Raises a CompressError where the model, the images, the recipe or the budget cannot be used."""
    assert budget.size_bytes is not None
    said, recipe = recipe.model.multilabel is not None, as_masks_tell(recipe)
    source, original = load_with_original(model, recipe, trust_pickle)
    if source.multilabel:
        log.info("several labels at once, each a probability of its own: %s", ", ".join(source.classes))
    elif not said and tells_labels_apart(original):
        log.info("the model gives a sigmoid of each class, and masks hold one class a pixel: the likeliest counts")
    fitting = with_fitting_sizes(recipe, source.network)
    settings = StudentSettings.of(fitting, budget)
    check_keep_float(source.network, settings.keep_float)
    check_budget(source.folded, source.channels, budget.size_bytes, budget.macs)
    reading = Reading.of(recipe)
    teachers = load_teachers(recipe.teacher, source, trust_pickle, reading)
    small = small_network(recipe, trust_pickle) if recipe.controls.run else None
    dataset = open_data(recipe.data, source.classes, recipe.seed, reading, multilabel=source.multilabel)
    seen = [sample.image for sample in dataset.val[:COMPARED_WITH_MODULE]]
    original.check(real_pictures(seen, source.network, reading))
    pictures = recipe.report.pictures
    shown = open_photographs(pictures, recipe.model.input_size, reading) if pictures else None
    return Loaded(source, teachers, small, dataset, shown, fitting, settings)


def _run(
    recipe: Recipe,
    budget: Budget,
    model: Path,
    out: Path,
    checkpoints: Checkpoints,
    trust_pickle: bool,
) -> RunRecord:
    start, cache = checkpoints.start, cache_folder()
    with checkpoints.stage("load"):
        given = loaded(recipe, budget, model, trust_pickle)
        source, teachers, small, dataset, shown = given.source, given.teachers, given.small, given.dataset, given.shown
        settings, tuning = given.settings, given.fitting.training("tune")
        warnings = _said_of_data(dataset, shown)
        torch.manual_seed(recipe.seed)
    checkpoints.forecast = given.foretold().without(checkpoints.kept())
    log.info("%s", checkpoints.forecast.describe())

    with checkpoints.stage("teacher"):
        tta, live, weights = recipe.teacher.tta, recipe.train.live_teacher, recipe.train.class_weights
        prepared = prepare(teachers, dataset, cache, tta, live, recipe.seed, weights)
        _warn(about_teacher(teacher_iou(prepared.examples, prepared.stored)))
    checkpoints.open(_identity(start.recipe, budget, source, small, prepared))
    start.remember()
    _forget_partial_files(out)

    heavy: Segmenter = source
    if tuning.schedule:
        heavy = tune(source, tuning, prepared.examples, prepared.teacher, checkpoints)
        with checkpoints.stage("tuned teacher"):
            prepared = with_teacher(heavy, prepared, cache)
    student = compress_network(heavy, settings, budget, prepared.examples, prepared.teacher, checkpoints)

    with checkpoints.stage("export"):
        graph = quantized_graph(student.quantized, recipe.name)
        files = settings.files.telling(source.multilabel)
        artifacts = _export(graph, files, shown.pixels[0] if shown else prepared.images[0], out)
        write_student(student.quantized.unquantized(), recipe.name, source.classes, out)

    with checkpoints.stage("verify"):
        paths = {artifact.format: artifact.path for artifact in artifacts}
        parity = compare(graph, paths, prepared.images[:COMPARED], source.multilabel)
        log.info("%s", describe_parity(parity))

    controls: dict[str, Artifact] = {}
    if recipe.controls.run:
        with checkpoints.stage("controls"):
            random = StudentSettings.of(given.fitting.pruned_at_random(), budget)
            size_bytes = student.plan.predicted_bytes
            controls = control_files(heavy, small, settings, random, size_bytes, prepared, checkpoints)

    with checkpoints.stage("measure"):
        references = _references(source, teachers, recipe.name, cache)
        measurements, answers, machine, cautions = _measure(
            references, controls, artifacts, dataset, prepared.images, recipe, cache
        )
        doubtful = doubts(
            measurements,
            {name: each.predictions for name, each in answers.items() if name not in controls},
            checkpoints.history.points,
            dataset.classes,
            dataset.reference == "labels",
            source.multilabel,
        )
        _warn(*doubtful)
        painted = _pictures(shown, dataset, references["teacher"], artifacts, answers)

    record = replace(
        _with_files(_record(start, source, dataset, prepared), artifacts, answers, out / GRAPH),
        predicted_bytes=student.plan.predicted_bytes,
        layers=_layers(heavy.network, student.network),
        history=tuple(checkpoints.history.points),
        parity=parity,
        measurements={name: found for name, found in measurements.items() if name not in controls},
        controls={name: measurements[name] for name in controls},
        verdict=judge({a.format: measurements[a.format] for a in artifacts}, budget),
        machine=machine,
        warnings=(*warnings, *cautions, *doubtful),
        minutes=checkpoints.minutes,
        earlier=earlier_runs(out, source.sha256),
        palette=palette_of(source.classes, recipe.colours(), source.multilabel),
    )
    write_report(record, painted, out)
    return record


def resume(
    out: Path, *, minutes: float | None = None, trust_pickle: bool = False, trust_code: bool = False
) -> RunRecord:
    """Go on with the run whose output folder is `out`, from its last checkpoint, to the result that it would have had
    (to the same bits where the recipe counts steps, on a processor); or train on until it has been trained for as many
    `minutes`, finished or not.

    The folder says which code is run, as the model's architecture: so one that this user did not start here is refused
    unless `trust_code`. Raises RecipeError then, and where there is no run."""
    start = started(out)
    recipe = restored_recipe(start.recipe, Path(start.recipe_folder), str(out / FOLDER / RUN))
    if not trust_code and not start.own:
        raise RecipeError(
            f"{out}: was not started here, and would run {', '.join(_code(start, recipe))}; "
            "add --trust-code if you trust that"
        )
    recipe = recipe.with_flags(minutes=minutes)
    return run(recipe, Path(start.model), out, command=start.command, trust_pickle=trust_pickle, resume=True)


def _code(start: Start, recipe: Recipe) -> list[str]:
    """What a run executes that is not part of this program, for people."""
    named = [each for each in (recipe.model.architecture, recipe.controls.small) if each]
    files = [str(recipe.folder / each.partition(":")[0]) for each in named]
    teachers = [f"the architecture of {path.with_suffix('.toml')}" for path in recipe.teacher.models]
    return [*files, *teachers, f"with the model {start.model}"]


def _said_of_data(dataset: Dataset, shown: Photographs | None) -> tuple[str, ...]:
    """What the folders left out or may have wrong, and that a figure of few images is rough."""
    warnings = (*dataset.warnings, *few_images(len(dataset.val)), *(shown.warnings if shown else ()))
    _warn(*warnings)
    return warnings


def budget_of(recipe: Recipe) -> Budget:
    """Which grants a file some bytes. Raises BudgetError."""
    budget = Budget.parse(recipe.budget, [TEACHER])
    if budget.size_bytes is None and budget.limits:
        given = " ".join(f"--budget {shlex.quote(limit.text)}" for limit in budget.limits)
        raise BudgetError(f"a budget needs a size too, which the student is planned to: {given} --budget 4MB")
    if budget.size_bytes is None:
        raise BudgetError("no budget: give one, such as --budget 4MB")
    return budget


def _identity(
    recipe: dict[str, Any], budget: Budget, source: Segmenter, small: Small | None, prepared: Prepared
) -> str:
    """Of a run: equal where one may go on with what the other has finished. How long it is trained may differ."""
    decides = {name: value for name, value in recipe.items() if name not in ("measure", "budget", "report")}
    decides["train"] = {name: value for name, value in recipe["train"].items() if name not in DURATION}
    return identity(
        "run",
        1,
        recipe=decides,
        budget=[asdict(limit) for limit in budget.limits],
        model=source.identity,
        small=small and small.model.identity,
        data=prepared.identity,
    )


def _forget_partial_files(out: Path) -> None:
    """Those that a run which was killed was writing."""
    for path in out.glob("*.partial"):
        path.unlink(missing_ok=True)


def _record(start: Start, source: Trained, dataset: Dataset, prepared: Prepared) -> RunRecord:
    """What went into a run; what came out of it is not there yet."""
    recipe = start.recipe
    return RunRecord(
        name=recipe["name"],
        version=recipe["version"],
        command=start.command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=recipe["seed"],
        recipe=_public(recipe),
        classes=source.classes,
        multilabel=source.multilabel,
        source=Source(source.path.name, source.sha256, source.size_bytes, source.parameters),
        tools=versions(),
        machine=Machine(),
        data=_data(dataset, prepared),
    )


def _warn(*sentences: str) -> None:
    for sentence in filter(None, sentences):
        log.warning("warning: %s", sentence)


def _with_files(record: RunRecord, artifacts: list[Artifact], answers: dict[str, Evaluation], graph: Path) -> RunRecord:
    """The record with what the files are, and how they run here. `graph`: the file of what they were written from."""
    pairs = zip(artifacts, artifacts[1:])
    return replace(
        record,
        artifacts=tuple(artifacts),
        agreement=min((agreement(answers[a.format], answers[b.format]) for a, b in pairs), default=None),
        kernels={artifact.format: _kernels(artifact, graph) for artifact in artifacts},
        layer_times=_profiled(artifacts),
    )


def _kernels(artifact: Artifact, graph: Path) -> Kernels:
    with Child(artifact.path, threads=1) as child:
        return child.kernels(graph)


def _data(dataset: Dataset, prepared: Prepared) -> Data:
    return Data(
        train=len(dataset.train),
        val=len(dataset.val),
        unlabelled=len(dataset.unlabelled),
        held_out=len(prepared.examples.held_out),
        left_out=len(prepared.examples.left_out),
        uncertainty=round(float(np.mean([each.mean() for each in prepared.stored.uncertainty])) / 255, 4),
        reference=dataset.reference,
        val_sha256=hashlib.sha256(prepared.images.tobytes()).hexdigest(),
        range=dataset.reading.range,
    )


def _export(graph: QuantizedGraph, files: FileSettings, image: np.ndarray, out: Path) -> list[Artifact]:
    """The files of a run, with what they give for `image`, and the graph that they were written from."""
    artifacts = export(graph, files, out)
    size = "x".join(map(str, image.shape[:2]))
    log.info("export: the files read one image of %s, as model.input_size says, and no other size", size)
    write_graph(graph, out / GRAPH)
    write_golden(image, artifacts, out)
    return artifacts


def _references(source: Trained, teachers: list[Trained], name: str, cache: Path) -> dict[str, Artifact]:
    """What the files are measured beside: the first teacher, and the model as it came where it is none of them."""
    references = {"teacher": float_file(teachers[0], name, cache)}
    log.info("heavy model: %s, float32 ONNX; a gate can compare with a copy of it", references["teacher"].path)
    if source.identity not in {teacher.identity for teacher in teachers}:
        references["source"] = float_file(source, name, cache)
    return references


def float_file(teacher: Segmenter, name: str, cache: Path) -> Artifact:
    """A model as fp32 ONNX, in the cache."""
    graph = float_graph(teacher.network, name)
    key = identity("fp32 onnx", _FLOAT_FILE, model=teacher.identity, name=name)
    path = cached(cache / f"teacher-{key}.onnx", lambda partial: to_onnx(graph, partial))
    image = teacher.network.input.attrs
    mean, std = (float(image.zero_point),) * image.channels, (1 / image.scale,) * image.channels
    return describe_in_child(path, graph.activation).reading(mean, std)


def _measure(
    references: dict[str, Artifact],
    controls: dict[str, Artifact],
    artifacts: list[Artifact],
    dataset: Dataset,
    images: np.ndarray,
    recipe: Recipe,
    cache: Path,
) -> tuple[dict[str, Measurement], dict[str, Evaluation], Machine, tuple[str, ...]]:
    """Bytes, latency and IoU of the files, the teacher first, from the files alone; where that was, and what makes the
    times less certain. What the references answer is kept in the cache."""
    machine = Machine(processor(), cores(), load_now())
    files = {**references, **controls, **{artifact.format: artifact for artifact in artifacts}}
    labelled = LabelledImages.of(dataset, lambda size, reading: images)
    known = dict.fromkeys(references, Known(cache))
    found = measure(files, labelled, against="teacher", seconds=recipe.measure.seconds, known=known)
    measurements = {name: each.measurement for name, each in found.items()}
    times = {name: each.latency for name, each in measurements.items() if each.latency}
    loads = (machine.load or 0.0, load_now())
    cautions = advice(times, max(loads), cores(), "with measure.seconds in the recipe")
    for caution in cautions:
        log.warning("%s", caution)
    answers = {name: each.evaluation for name, each in found.items() if each.evaluation}
    return measurements, answers, machine, cautions


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
        return pictures_of_photographs(shown, teacher, student, dataset.classes, dataset.multilabel)
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


def _public(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe as it went into the run; folders by name alone, since a report travels."""
    named = {
        section: {key: Path(value).name if isinstance(value, str) else value for key, value in recipe[section].items()}
        for section in ("data", "report")
    }
    return recipe | named
