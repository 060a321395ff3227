"""The story, top to bottom: a heavy model goes in, measured files come out."""

import hashlib
import logging
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from compress.budget import TEACHER as TEACHER_FILE
from compress.budget import Budget, judge
from compress.data.folders import Dataset
from compress.data.images import Reading
from compress.data.maps import MapFolder, maps_of
from compress.data.packed import pack_images
from compress.errors import BudgetError, RecipeError
from compress.files import alone_in, cache_folder, check_writable, identity
from compress.formats.artifact import Artifact
from compress.formats.npz import write_graph
from compress.graph.network import Network
from compress.graph.quantized import QuantizedGraph
from compress.judge.verify import GRAPH, compare, describe_parity
from compress.load.class_map import tells_labels_apart
from compress.load.model import Segmenter
from compress.load.walk import NORMALISE
from compress.machine import busy, cores, load_now, measuring, prepare_process, processor, versions
from compress.measure.evaluate import Evaluation, LabelledImages, agreement, measure
from compress.measure.known import Known
from compress.measure.latency import advice
from compress.measure.statistics import few_images
from compress.measure.values import Measurement
from compress.pipeline.checkpoints import FOLDER, RUN, Checkpoints, Start, started
from compress.pipeline.controls import Small, control_files, small_network
from compress.pipeline.forecast import Forecast, Speed, forecast, speed_of
from compress.pipeline.pictures import Photographs, open_photographs, pictures_of_photographs, pictures_of_validation
from compress.pipeline.plain_torch import write_student
from compress.pipeline.prepare import (
    Prepared,
    Teaching,
    as_masks_tell,
    live_networks,
    load_teachers,
    one_traced,
    open_data,
    prepare,
    real_pictures,
    with_teacher,
)
from compress.pipeline.references import TEACHER, References, references
from compress.pipeline.source import open_source, source_of
from compress.pipeline.student import StudentSettings, trained, tune
from compress.pipeline.trial import Candidate, candidates, chosen
from compress.prune.cost import CHANNEL_BYTES
from compress.quantize.convert import quantized_graph
from compress.recipe import Recipe, beside, restored_recipe
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
from compress.runtime.local import Child
from compress.train import processes
from compress.train.examples import teacher_iou

log = logging.getLogger("compress")

HISTORY = "history.csv"
COMPARED = 50
COMPARED_WITH_MODULE = 2
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

    Of several processes that torchrun started (`compress.train.processes`) the first one does so, and the others help:
    with the teachers' maps and with training, after which they end (SystemExit).

    Every finished stage is kept in `out`/checkpoints, training at each check; with `resume` the run there goes on from
    what it has. Raises a CompressError, and writes nothing, when the model, the data, the budget or the folder cannot
    be used, or another run writes there.
    """
    prepare_process()
    budget = budget_of(recipe)
    processes.join()
    start = Start(str(model.resolve()), recipe.model_dump(mode="json"), str(recipe.folder.resolve()), command)
    if not processes.first():
        with TemporaryDirectory(prefix="compress-") as folder:  # of what a helper writes nothing is kept
            out = Path(folder)
            return _run(recipe, budget, model, out, Checkpoints(out / FOLDER, start, resume=False), trust_pickle)
    check_writable(out)
    if (others := busy()) is not None:
        log.warning("%s", others)
    with alone_in(out / FOLDER, out):
        checkpoints = Checkpoints(out / FOLDER, start, resume, out / HISTORY)
        return _run(recipe, budget, model, out, checkpoints, trust_pickle)


@dataclass(frozen=True, eq=False)
class Loaded:
    """All that a run reads before its first stage."""

    source: Teaching
    candidates: list[Candidate]
    teachers: list[Teaching]
    small: Small | None
    dataset: Dataset
    shown: Photographs | None

    def foretold(self) -> Forecast:
        speeds = {one.identity: speed_of(one) for one in (*self.teachers, self.source)}
        teachers = [speeds[one.identity] for one in self.teachers]
        first, count = self.candidates[0], len(self.candidates)
        own = Speed.of(first.given.model.network) if first.given else speeds[self.source.identity]
        size = first.size if first.given else None
        return forecast(first.fitting, own, self.dataset, teachers, [*speeds.values()], size, count)


def loaded(recipe: Recipe, budget: Budget, model: Path, trust_pickle: bool = False) -> Loaded:
    """Raises a CompressError where the model, the images, the recipe or the budget cannot be used."""
    assert budget.size_bytes is not None
    said, recipe = recipe.model.multilabel is not None, as_masks_tell(recipe)
    source, original = open_source(model, recipe, trust_pickle)
    classes = tuple(recipe.model.classes)
    if source.multilabel:
        log.info("several labels at once, each a probability of its own: %s", ", ".join(classes))
    elif not said and original and tells_labels_apart(original):
        log.info("the model gives a sigmoid of each class, and masks hold one class a pixel: the likeliest counts")
    heavy = one_traced(source)
    _check_known(recipe, source, heavy)
    students = candidates(recipe, source, budget, trust_pickle)
    reading = Reading.of(recipe)
    teachers = load_teachers(recipe.teacher, source, trust_pickle, reading)
    if recipe.train.live_teacher:
        live_networks(teachers)
    small = small_network(recipe, trust_pickle) if recipe.controls.run else None
    dataset = open_data(recipe.data, classes, recipe.seed, reading, multilabel=source.multilabel)
    dataset = replace(dataset, warnings=(*dataset.warnings, *_said_of_maps([*teachers, source], dataset)))
    if original and heavy:
        seen = [sample.image for sample in dataset.val[:COMPARED_WITH_MODULE]]
        original.check(real_pictures(seen, heavy.network, reading))
    pictures = recipe.report.pictures
    shown = open_photographs(pictures, reading) if pictures else None
    return Loaded(source, students, teachers, small, dataset, shown)


def _check_known(recipe: Recipe, source: Teaching, heavy: Segmenter | None) -> None:
    """Raises RecipeError where a stage needs the model's own channels, and it cannot be traced."""
    if heavy is None and recipe.training("tune").schedule:
        raise RecipeError(f"{source.path}: cannot be traced, so it is not trained; leave [tune] out")
    if heavy is None and recipe.controls.run:
        raise RecipeError(f"{source.path}: cannot be traced, so nothing is cut to compare with; leave --controls out")


def _said_of_maps(teachers: Sequence[Teaching], dataset: Dataset) -> tuple[str, ...]:
    """Warnings about folders of maps. Raises DataError where one cannot teach of these images."""
    folders = {one.identity: one for one in teachers if isinstance(one, MapFolder)}
    return tuple(line for one in folders.values() for line in maps_of(one, dataset).warnings)


def _run(
    recipe: Recipe,
    budget: Budget,
    model: Path,
    out: Path,
    checkpoints: Checkpoints,
    trust_pickle: bool,
) -> RunRecord:
    start, cache = checkpoints.start, cache_folder()
    with processes.in_turn():
        with checkpoints.stage("load"):
            given = loaded(recipe, budget, model, trust_pickle)
            dataset, shown = given.dataset, given.shown
            warnings = _said_of_data(dataset, shown)
            torch.manual_seed(recipe.seed)
        if processes.first():
            checkpoints.forecast = given.foretold().without(checkpoints.kept())
            log.info("%s", checkpoints.forecast.describe())
    source, teachers, small = given.source, given.teachers, given.small
    tuning = given.candidates[0].fitting.training("tune")

    with checkpoints.stage("teacher"):
        tta, live, weights = recipe.teacher.tta, recipe.train.live_teacher, recipe.train.class_weights
        prepared = prepare(teachers, dataset, recipe.model.input_size, cache, tta, live, recipe.seed, weights)
        _warn(about_teacher(teacher_iou(prepared.examples, prepared.stored)))
    checkpoints.open(_identity(start.recipe, budget, given, prepared))
    start.remember()
    _forget_partial_files(out)

    heavy = one_traced(source)
    if tuning.schedule and heavy:
        heavy = tune(heavy, tuning, prepared.examples, prepared.teacher, checkpoints)
        with checkpoints.stage("tuned teacher"):
            prepared = with_teacher(heavy, prepared, dataset, cache)
    candidate, begun, trials = chosen(given.candidates, heavy, budget, prepared, checkpoints)
    settings, size = candidate.settings, candidate.size
    student = trained(begun, settings, prepared.examples, prepared.teacher, checkpoints)
    if not recipe.controls.run:
        processes.leave()

    with checkpoints.stage("export"):
        graph = quantized_graph(student.quantized, recipe.name)
        files = settings.files.telling(source.multilabel)
        images = pack_images([sample.image for sample in dataset.val], size, cache, dataset.reading).array
        artifacts = _export(graph, files, shown.pixels(size)[0] if shown else images[0], out)
        write_student(student.quantized.unquantized(), recipe.name, dataset.classes, out)

    with checkpoints.stage("verify"):
        paths = {artifact.format: artifact.path for artifact in artifacts}
        parity = compare(graph, paths, images[:COMPARED], source.multilabel)
        log.info("%s", describe_parity(parity))

    controls: dict[str, Artifact] = {}
    if recipe.controls.run and heavy:
        with checkpoints.stage("controls"):
            random = StudentSettings.of(candidate.fitting.pruned_at_random(), budget)
            size_bytes, copied = begun.plan.predicted_bytes, heavy.resized(size)
            controls = control_files(copied, small, settings, random, size_bytes, prepared, checkpoints)

    processes.leave()
    with checkpoints.stage("measure"):
        compared = references(source, teachers, dataset, recipe.model.input_size, recipe.name, cache)
        _warn(*compared.warnings)
        measurements, answers, machine, cautions = _measure(compared, controls, artifacts, dataset, recipe, cache)
        doubtful = doubts(
            measurements,
            {name: each.predictions for name, each in answers.items() if name not in controls},
            checkpoints.history.points,
            dataset.classes,
            dataset.reference == "labels",
            source.multilabel,
        )
        _warn(*doubtful)
        painted = _pictures(shown, dataset, compared, artifacts, answers)

    origin = source_of(source)
    record = replace(
        _with_files(_record(start, origin, dataset, prepared), artifacts, answers, out / GRAPH),
        predicted_bytes=begun.plan.predicted_bytes,
        layers=_layers(begun.whole, student.network),
        trials=trials,
        history=tuple(checkpoints.history.points),
        parity=parity,
        measurements={name: found for name, found in measurements.items() if name not in controls},
        controls={name: measurements[name] for name in controls},
        verdict=judge({a.format: measurements[a.format] for a in artifacts}, budget),
        machine=machine,
        warnings=(*warnings, *compared.warnings, *cautions, *doubtful),
        minutes=checkpoints.minutes,
        earlier=earlier_runs(out, origin.sha256),
        palette=palette_of(dataset.classes, recipe.colours(), source.multilabel),
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
    processes.join()
    start = processes.from_first(lambda: started(out))
    recipe = restored_recipe(start.recipe, Path(start.recipe_folder), str(out / FOLDER / RUN))
    if not (trust_code or processes.from_first(lambda: start.own)):
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
    if recipe.student.network not in (None, "light", "auto"):
        files.append(str((recipe.student.folder or recipe.folder) / str(recipe.student.network).partition(":")[0]))
    recipes = [beside(path) for path in recipe.teacher.models]
    teachers = [f"the architecture of {path}" for path in recipes if path.is_file()]
    return [*files, *teachers, f"with the model {start.model}"]


def _said_of_data(dataset: Dataset, shown: Photographs | None) -> tuple[str, ...]:
    """What the folders left out or may have wrong, and that a figure of few images is rough."""
    warnings = (*dataset.warnings, *few_images(len(dataset.val)), *(shown.warnings if shown else ()))
    _warn(*warnings)
    return warnings


def budget_of(recipe: Recipe) -> Budget:
    """Which grants a file some bytes. Raises BudgetError."""
    budget = Budget.parse(recipe.budget, [TEACHER_FILE])
    if budget.size_bytes is None and budget.limits:
        given = " ".join(f"--budget {shlex.quote(limit.text)}" for limit in budget.limits)
        raise BudgetError(f"a budget needs a size too, which the student is planned to: {given} --budget 4MB")
    if budget.size_bytes is None:
        raise BudgetError("no budget: give one, such as --budget 4MB")
    return budget


def _identity(recipe: dict[str, Any], budget: Budget, given: Loaded, prepared: Prepared) -> str:
    """Of a run: equal where one may go on with what the other has finished. How long it is trained may differ."""
    decides = {name: value for name, value in recipe.items() if name not in ("measure", "budget", "report")}
    decides["train"] = {name: value for name, value in recipe["train"].items() if name not in DURATION}
    return identity(
        "run",
        1,
        recipe=decides,
        budget=[asdict(limit) for limit in budget.limits],
        model=given.source.identity,
        small=given.small and given.small.model.identity,
        **({"students": new} if (new := [one.given.model.identity for one in given.candidates if one.given]) else {}),
        data=prepared.identity,
    )


def _forget_partial_files(out: Path) -> None:
    """Those that a run which was killed was writing."""
    for path in out.glob("*.partial"):
        path.unlink(missing_ok=True)


def _record(start: Start, origin: Source, dataset: Dataset, prepared: Prepared) -> RunRecord:
    """What went into a run; what came out of it is not there yet."""
    recipe = start.recipe
    return RunRecord(
        name=recipe["name"],
        version=recipe["version"],
        command=start.command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=recipe["seed"],
        recipe=_public(recipe),
        classes=dataset.classes,
        multilabel=dataset.multilabel,
        source=origin,
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
    log.info("export: the files read one image of %s, and no other size", size)
    write_graph(graph, out / GRAPH)
    write_golden(image, artifacts, out)
    return artifacts


def _measure(
    compared: References,
    controls: dict[str, Artifact],
    artifacts: list[Artifact],
    dataset: Dataset,
    recipe: Recipe,
    cache: Path,
) -> tuple[dict[str, Measurement], dict[str, Evaluation], Machine, tuple[str, ...]]:
    """Bytes, latency and IoU of the files, the teacher first, from the files alone; where that was, and what makes the
    times less certain. What heavy files answer is kept in the cache."""
    with measuring():
        machine = Machine(processor(), cores(), load_now())
    files = {**compared.files, **controls, **{artifact.format: artifact for artifact in artifacts}}
    images = [sample.image for sample in dataset.val]
    labelled = LabelledImages.of(dataset, lambda size, reading: pack_images(images, size, cache, reading).array)
    known = dict.fromkeys(compared.files, Known(cache))
    found = measure(files, labelled, against=TEACHER, seconds=recipe.measure.seconds, known=known, told=compared.told)
    measurements = {name: each.measurement for name, each in found.items()}
    times = {name: each.latency for name, each in measurements.items() if each.latency}
    with measuring():
        loads = (machine.load or 0.0, load_now())
    cautions = advice(times, max(loads), cores(), "with measure.seconds in the recipe")
    for caution in cautions:
        log.warning("%s", caution)
    answers = {name: each.evaluation for name, each in found.items() if each.evaluation}
    return measurements, answers, machine, cautions


def _pictures(
    shown: Photographs | None,
    dataset: Dataset,
    compared: References,
    artifacts: list[Artifact],
    answers: dict[str, Evaluation],
) -> list[Picture]:
    """The images of the report, with the masks of the TFLite file, or of the first one, beside the teacher's; no
    photographs where that is no file."""
    student = next((each for each in artifacts if each.format == "tflite"), artifacts[0])
    if shown:
        heavy = compared.files.get(TEACHER)
        return pictures_of_photographs(shown, heavy, student, dataset.classes, dataset.multilabel) if heavy else []
    return pictures_of_validation(dataset, answers.get(TEACHER), answers[student.format])


def _profiled(artifacts: list[Artifact]) -> dict[str, tuple[LayerTime, ...]]:
    """Latency by layer of the first file that onnxruntime runs."""
    profilable = [artifact for artifact in artifacts if artifact.path.suffix in SUFFIXES]
    return {artifact.format: layer_times(artifact.path) for artifact in profilable[:1]}


def _layers(heavy: Network, student: Network) -> tuple[LayerSize, ...]:
    """Of those that the student was made from: one that it does without has no channels left."""
    layers = []
    for node in heavy.weighted():
        if node.name == NORMALISE:
            continue
        before = heavy.weight(node.name)
        wide = node.out_channels(before)
        narrow = weights = 0
        if own := student.by_name.get(node.name):
            after = student.weight(node.name)
            narrow, weights = own.out_channels(after), after.numel()
        layers.append(LayerSize(node.name, 4 * (before.numel() + wide), weights + CHANNEL_BYTES * narrow, wide, narrow))
    return tuple(layers)


def _public(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe as it went into the run; folders by name alone, since a report travels."""
    named = {
        section: {key: Path(value).name if isinstance(value, str) else value for key, value in recipe[section].items()}
        for section in ("data", "report", "student")
    }
    return recipe | named
