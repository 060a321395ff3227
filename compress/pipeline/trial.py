"""What may become of a model: a narrower copy of it, or another network, reading images of one size or another; and the
short training of each that decides between them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from compress.budget import Budget
from compress.data.images import Size
from compress.errors import BudgetError, CompressError, ModelError
from compress.load.model import Segmenter
from compress.load.sizes import with_fitting_sizes
from compress.measure.statistics import paired_difference
from compress.pipeline.checkpoints import Checkpoints
from compress.pipeline.given import Given, begun_with, check_fits, given_students
from compress.pipeline.prepare import Prepared, Teaching, one_traced
from compress.pipeline.student import Begun, StudentSettings, narrower, tried
from compress.prune.cost import macs_of
from compress.prune.widths import check_budget
from compress.quantize.placement import check_keep_float
from compress.recipe import Recipe, Schedule
from compress.report.record import Trial
from compress.train import processes
from compress.train.examples import held_out_ious

log = logging.getLogger("compress")

SAME = 0.005
"""IoU: of students that are no farther apart the one with the least work is taken."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A student that may be made; `given`: None for a copy of the model, and `size_bytes` those of its largest file, 0
    for a copy. `fitting`: the recipe with the sizes that it takes."""

    name: str
    size: Size
    given: Given | None
    size_bytes: int
    fitting: Recipe
    settings: StudentSettings

    def begin(self, heavy: Segmenter | None, budget: Budget, prepared: Prepared, checkpoints: Checkpoints) -> Begun:
        """Raises BudgetError where it does not fit."""
        examples, teacher = prepared.examples, prepared.teacher
        if self.given:
            return begun_with(self.given, self.size_bytes, self.settings, examples, teacher)
        assert heavy
        return narrower(heavy.resized(self.size), self.settings, budget, examples, teacher, checkpoints)


def candidates(recipe: Recipe, source: Teaching, budget: Budget, trust_pickle: bool = False) -> list[Candidate]:
    """All that the recipe names and the budget has room for. Raises a CompressError, that of the first, where there is
    none."""
    wanted = recipe.student.network
    kinds: Sequence[str | None] = [None, "light"] if wanted == "auto" else [wanted]
    found, refused = [], []
    for size in recipe.plan.input_sizes or [recipe.model.input_size]:
        for kind in kinds:
            try:
                found.append(_candidate(recipe, source, kind, size, budget, trust_pickle))
            except CompressError as error:
                refused.append(error)
    if not found:
        raise refused[0]
    for reason in refused:
        log.warning("warning: left out of the trial: %s", reason)
    return found


def _candidate(
    recipe: Recipe, source: Teaching, kind: str | None, size: Size, budget: Budget, trust_pickle: bool
) -> Candidate:
    student = recipe.student.model_copy(update={"network": kind, "weights": recipe.student.weights if kind else None})
    one = recipe.model_copy(update={"student": student})
    if kind is None:
        own = copied(source, size)
        fitting, settings = _fitted(one, own, budget)
        assert budget.size_bytes is not None
        check_budget(own.folded, own.channels, budget.size_bytes, budget.macs)
        return Candidate(_named("narrower copy", size), size, None, 0, fitting, settings)
    refused: BudgetError | None = None
    for given in given_students(one, size, trust_pickle, multilabel=source.multilabel):
        fitting, settings = _fitted(one, given.model, budget)
        try:
            size_bytes = check_fits(given, settings, budget)
        except BudgetError as error:
            refused = error
            continue
        log.info("student: %s", given.describe())
        return Candidate(_named(given.name, size), size, given, size_bytes, fitting, settings)
    assert refused
    raise refused


def _fitted(recipe: Recipe, own: Segmenter, budget: Budget) -> tuple[Recipe, StudentSettings]:
    """The recipe with the sizes that a student takes, and how it is made."""
    fitting = with_fitting_sizes(recipe, own.network)
    settings = StudentSettings.of(fitting, budget)
    check_keep_float(own.network, settings.keep_float)
    return fitting, settings


def _named(student: str, size: Size) -> str:
    return f"{student}, {size[0]}x{size[1]}"


def copied(source: Teaching, size: Size) -> Segmenter:
    """What is cut: the model for images of that size. Raises ModelError where it cannot be traced."""
    known = one_traced(source)
    if known is None:
        raise ModelError(f"{source.path}: cannot be traced, so no narrower copy is made of it; name a --student")
    return known.resized(size)


def chosen(
    among: Sequence[Candidate], heavy: Segmenter | None, budget: Budget, prepared: Prepared, checkpoints: Checkpoints
) -> tuple[Candidate, Begun, tuple[Trial, ...]]:
    """The candidate that does best on the held-out images after a short training, and what it goes on from; where there
    is but one, that, untrained. Raises BudgetError and TrainError."""
    if len(among) == 1:
        return among[0], among[0].begin(heavy, budget, prepared, checkpoints), ()
    tried_out = []
    for number, one in enumerate(among, 1):
        own = checkpoints.inside(f"trial-{number}", heavy=heavy and heavy.identity, candidate=one.name)
        tried_out.append(_tried(one, heavy, budget, prepared, own))
    taken = _best([trial for _, trial, _ in tried_out])
    candidate, (begun, trial, best) = among[taken], tried_out[taken]
    log.info("trial: %s is taken", candidate.name)
    told = [replace(each, apart=paired_difference(scores, best)) for _, each, scores in tried_out]
    told[taken] = replace(trial, taken=True)
    return candidate, begun, tuple(told)


def _tried(
    one: Candidate, heavy: Segmenter | None, budget: Budget, prepared: Prepared, checkpoints: Checkpoints
) -> tuple[Begun, Trial, list[float]]:
    """A candidate after its short training, and its IoU on each of the held-out images."""
    start = one.begin(heavy, budget, prepared, checkpoints)
    settings = replace(one.settings, distil=replace(one.settings.distil, schedule=_schedule(one.fitting)))
    network = tried(start, settings, prepared.examples, checkpoints)
    scores = processes.from_first(lambda: held_out_ious(network, prepared.examples))
    found = Trial(one.name, float(np.mean(scores)), start.plan.predicted_bytes, macs_of(network))
    log.info("trial: %s: IoU %.4f, %.3g billion multiply-accumulates", found.name, found.iou, found.macs / 1e9)
    return replace(start, network=network.rewritten(network.weights())), found, scores


def _best(trials: Sequence[Trial]) -> int:
    """The one with the least work, of those that are as good as the best."""
    highest = max(trial.iou for trial in trials)
    good = [index for index, trial in enumerate(trials) if trial.iou >= highest - SAME]
    return min(good, key=lambda index: trials[index].macs)


def _schedule(recipe: Recipe) -> Schedule:
    """As long as the recipe has it; where it counts steps, the same share of those."""
    minutes, whole = recipe.student.trial_minutes, recipe.train
    if whole.steps is None:
        return Schedule(minutes)
    return Schedule(0.0, max(1, round(whole.steps * min(1.0, minutes / max(whole.minutes, minutes)))))
