"""The heavy network -> the student: cut, repaired, distilled, quantized. Every stage is kept in the journal."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from compress.budget import Budget
from compress.errors import DataError
from compress.graph.channels import find_groups
from compress.graph.network import Network
from compress.load.model import Trained
from compress.load.trace import fold_normalisation
from compress.pipeline.checkpoints import Journal
from compress.pipeline.int8 import calibrated
from compress.pipeline.plan import plan_cut, planned
from compress.pipeline.teaching import random_pixels, with_features
from compress.prune.cost import MACS, Workload, predicted_bytes
from compress.prune.cut import cut
from compress.prune.importance import GroupDamage, measure_damage
from compress.prune.repair import repair
from compress.prune.widths import PrunePlan
from compress.quantize.training import QuantizedNetwork
from compress.recipe import Recipe, Stage
from compress.train.examples import Lesson, held_out_iou
from compress.train.loop import Schedule, fit

log = logging.getLogger("compress")
Net = TypeVar("Net", bound=Network)


@dataclass(frozen=True)
class Student:
    """`plan` is in channels of the heavy network; `network` is the student before quantization."""

    plan: PrunePlan
    network: Network
    quantized: QuantizedNetwork


def tuned(heavy: Trained, lesson: Lesson, recipe: Recipe, journal: Journal) -> Trained:
    """The model trained on the labels alone where there are any, and on what its teachers say of all other images; it
    is what teaches then. Large networks learn more of few labels, and hand it on with images that have none (Chen et
    al. 2020, arXiv 2006.10029). Raises DataError without a label."""
    if not len(lesson.labels):
        raise DataError("tune: no image to learn from has a label; take [tune] out of the recipe")
    strict = replace(lesson, label_weight=1.0)
    network = journal.once(
        "tune",
        lambda: _fit(heavy.network, strict, recipe, "tune", journal),
        Network.to_state,
        Network.from_state,
    )
    return replace(heavy, network=network)


def compress_network(heavy: Trained, recipe: Recipe, budget: Budget, lesson: Lesson, journal: Journal) -> Student:
    """The student of `heavy` that `recipe` describes, within the budget. Raises BudgetError and TrainError."""
    plan, network = pruned(heavy, recipe, budget, lesson, journal)
    network, quantized = taught(network, lesson, recipe, journal, lambda: with_features(lesson, heavy, plan, recipe))
    return Student(plan, network, quantized)


def pruned(
    heavy: Trained, recipe: Recipe, budget: Budget, lesson: Lesson, journal: Journal
) -> tuple[PrunePlan, Network]:
    """The plan and the network that is cut to it and repaired, in `recipe.plan.cuts` steps.

    With more than one the sizes shrink by the same factor each time. The network is repaired towards the heavy one's
    activations after every cut and distilled before the next, which is planned on what it has become (iterative
    pruning, Han et al. 2015, arXiv 1506.02626); so what a cut keeps is always a part of what the one before kept.
    """
    net = fold_normalisation(heavy.network)
    plan = PrunePlan({group.name: tuple(range(group.width)) for group in find_groups(net).groups.values()}, 0)
    for number in range(1, recipe.plan.cuts + 1):
        plan, net = _cut_and_repaired(heavy, plan, net, number, recipe, budget, lesson, journal)
    return plan, net


def _cut_and_repaired(
    heavy: Trained,
    before: PrunePlan,
    net: Network,
    number: int,
    recipe: Recipe,
    budget: Budget,
    lesson: Lesson,
    journal: Journal,
) -> tuple[PrunePlan, Network]:
    """Cut `number` of `net`, which has the channels of the plan `before`; distilled too, unless it is the last."""
    last = number == recipe.plan.cuts
    tag = "" if last else f"-{number}"
    groups = find_groups(net)

    def chosen() -> PrunePlan:
        inside = _next_plan(heavy, net, number, recipe, budget, lesson)
        kept = {name: tuple(before.kept[name][i] for i in picked) for name, picked in inside.kept.items()}
        return PrunePlan(kept, inside.predicted_bytes)

    plan = journal.once(f"plan{tag}", chosen, asdict, _restored_plan)
    inside = {name: tuple(before.kept[name].index(channel) for channel in kept) for name, kept in plan.kept.items()}
    narrower = cut(net, groups, inside)

    def repaired() -> Network:
        journal.moment("cut", held_out_iou(narrower, lesson))
        if not recipe.repair.images:
            return narrower
        pixels = random_pixels(lesson, recipe.repair.images, recipe.repair.size, recipe.seed)
        channels = find_groups(fold_normalisation(heavy.network))
        result = repair(heavy.network, narrower, channels, plan.kept, pixels)
        journal.moment("repair", held_out_iou(result, lesson))
        return result

    student = journal.once(f"repair{tag}", repaired, Network.to_state, Network.from_state)
    if last or not Schedule(*recipe.schedule("between")):
        return plan, student

    def distilled() -> Network:
        return _fit(student, with_features(lesson, heavy, plan, recipe), recipe, "between", journal, tag)

    return plan, journal.once(f"between{tag}", distilled, Network.to_state, Network.from_state)


def _next_plan(heavy: Trained, net: Network, number: int, recipe: Recipe, budget: Budget, lesson: Lesson) -> PrunePlan:
    """In channels of `net`. Of several cuts each saves the same share of the bytes, and of the work, that are left."""
    assert budget.size_bytes is not None
    whole, groups, done = fold_normalisation(heavy.network), find_groups(net), number / recipe.plan.cuts
    damage = _damage(heavy.network if number == 1 else net, recipe, lesson)
    share = min(1.0, recipe.plan.macs_share**done * _macs(whole) / _macs(net))
    if done == 1:
        return plan_cut(net, groups, damage, recipe, budget, share)
    channels = find_groups(whole)
    whole_bytes = predicted_bytes(whole, channels, {group.name: group.width for group in channels.groups.values()})
    size_bytes = round(whole_bytes * (budget.size_bytes / whole_bytes) ** done)
    return planned(net, groups, damage, recipe, size_bytes, share)


def taught(
    network: Network, lesson: Lesson, recipe: Recipe, journal: Journal, with_features: Callable[[], Lesson]
) -> tuple[Network, QuantizedNetwork]:
    """The network distilled, and its int8 twin trained on; `with_features` adds what distillation compares inside."""
    if Schedule(*recipe.schedule("distil")):

        def distilled() -> Network:
            with journal.stage("features"):
                fuller = with_features()
            return _fit(network, fuller, recipe, "distil", journal)

        student = journal.once("distil", distilled, Network.to_state, Network.from_state)
    else:
        student = network

    def int8() -> QuantizedNetwork:
        result, iou = calibrated(student, lesson, recipe)
        journal.moment("ptq", iou)
        return result

    quantized = journal.once("ptq", int8, QuantizedNetwork.to_state, QuantizedNetwork.from_state)
    if not Schedule(*recipe.schedule("qat")):
        return student, quantized
    return student, journal.once(
        "qat",
        lambda: _fit(quantized, lesson, recipe, "qat", journal),
        QuantizedNetwork.to_state,
        QuantizedNetwork.from_state,
    )


def _damage(net: Network, recipe: Recipe, lesson: Lesson) -> dict[str, GroupDamage]:
    if recipe.plan.method != "damage":
        return {}
    pixels = random_pixels(lesson, recipe.plan.images, recipe.plan.size, recipe.seed + 1)
    return measure_damage(net, find_groups(net), [net.real(one[None]) for one in pixels])


def _macs(net: Network) -> float:
    channels = find_groups(net)
    work = Workload(net, channels).total({group.name: group.width for group in channels.groups.values()})
    return float(work[:MACS].sum())


def _restored_plan(state: dict[str, Any]) -> PrunePlan:
    return PrunePlan({name: tuple(kept) for name, kept in state["kept"].items()}, state["predicted_bytes"])


def _fit(
    net: Net,
    lesson: Lesson,
    recipe: Recipe,
    stage: Stage,
    journal: Journal,
    tag: str = "",
) -> Net:
    settings = recipe.tune if stage == "tune" else recipe.train
    state = journal.folder / f"{stage}{tag}.state"
    best = fit(
        net,
        lesson,
        schedule=Schedule(*recipe.schedule(stage)),
        batch=settings.batch,
        learning_rate=recipe.train.qat_learning_rate if stage == "qat" else settings.learning_rate,
        seed=recipe.seed,
        desc=stage + tag,
        on_check=lambda minutes, iou, loss: journal.moment(stage, iou, minutes, loss),
        state=state,
    )
    journal.trained = journal.moments[-1].minutes
    return best
