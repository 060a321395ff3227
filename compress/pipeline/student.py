"""The heavy network -> the student: cut, repaired, distilled, quantized. Every stage is kept in a checkpoint."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from torch import Tensor

from compress.budget import Budget
from compress.errors import DataError
from compress.files import cache_folder
from compress.graph.channels import Channels
from compress.graph.network import Network
from compress.load.model import Segmenter
from compress.pipeline.checkpoints import Checkpoints
from compress.pipeline.int8 import calibrated
from compress.pipeline.plan import PlanSettings, plan_cut, planned
from compress.pipeline.prepare import random_pixels, with_features
from compress.pipeline.shared import known_branches, known_damage
from compress.prune.branches import Branch, measure_branches, without
from compress.prune.cost import Workload, predicted_bytes
from compress.prune.cut import check_cut, cut
from compress.prune.importance import GroupDamage, measure_damage
from compress.prune.repair import repair
from compress.prune.widths import PrunePlan
from compress.quantize.training import QuantizedNetwork
from compress.recipe import PlanSection, Recipe, RepairSection, Training
from compress.release.export import FileSettings
from compress.train.examples import Examples, held_out_iou
from compress.train.loop import fit
from compress.train.teacher import Teacher

log = logging.getLogger("compress")
Net = TypeVar("Net", bound=Network)


@dataclass(frozen=True)
class StudentSettings:
    """All that decides a student, but for the heavy model, the budget, the examples and the teacher. `between`,
    `distil` and `qat` are left out where they last no time; `features`: views of which the heavy model's are compared;
    `worst_float_within`: bytes up to which the layers that suffer most from int8 stay float, None for no such layer."""

    plan: PlanSection
    repair: RepairSection
    between: Training
    distil: Training
    qat: Training
    features: int
    files: FileSettings
    keep_float: tuple[str, ...]
    worst_float_within: int | None
    seed: int

    @classmethod
    def of(cls, recipe: Recipe, budget: Budget) -> "StudentSettings":
        return cls(
            recipe.plan,
            recipe.repair,
            between=recipe.training("between"),
            distil=recipe.training("distil"),
            qat=recipe.training("qat"),
            features=recipe.train.features,
            files=FileSettings.of(recipe),
            keep_float=tuple(recipe.keep_float),
            worst_float_within=(budget.size_bytes or 0) if recipe.sensitivity else None,
            seed=recipe.seed,
        )

    @property
    def planning(self) -> PlanSettings:
        return PlanSettings(self.plan.method, self.files, self.keep_float, self.seed)


@dataclass(frozen=True, eq=False)
class Begun:
    """What training begins with.

    whole    the network that the student is cut from, or that it is
    plan     in channels of `whole`; its bytes are those of the largest file
    network  the student
    teacher  that of the distillation, with what is compared inside, which it computes when it is asked
    """

    whole: Network
    plan: PrunePlan
    network: Network
    teacher: Callable[[], Teacher]


@dataclass(frozen=True, eq=False)
class Student:
    """Trained: `network` is the student before quantization."""

    begun: Begun
    network: Network
    quantized: QuantizedNetwork


def tune(
    heavy: Segmenter, training: Training, examples: Examples, teacher: Teacher, checkpoints: Checkpoints
) -> Segmenter:
    """Another segmenter: the model trained on the labels where there are any, and on what its teachers say of all other
    images. It is what teaches then. Large networks learn more of few labels, and hand it on with images that have none
    (Chen et al. 2020, arXiv 2006.10029). Raises DataError without a label."""
    if not len(examples.labels):
        raise DataError("tune: no image to learn from has a label; take [tune] out of the recipe")
    network = checkpoints.once(
        "tune",
        lambda: _fit(heavy.network, examples, teacher, training, "tune", checkpoints),
        Network.to_state,
        Network.from_state,
        together=True,
    )
    return Segmenter(network, heavy.classes, heavy.multilabel)


def compress_network(
    heavy: Segmenter,
    settings: StudentSettings,
    budget: Budget,
    examples: Examples,
    teacher: Teacher,
    checkpoints: Checkpoints,
) -> Student:
    """The student of `heavy` within the budget. Raises BudgetError and TrainError."""
    begun = narrower(heavy, settings, budget, examples, teacher, checkpoints)
    return trained(begun, settings, examples, teacher, checkpoints)


def narrower(
    heavy: Segmenter,
    settings: StudentSettings,
    budget: Budget,
    examples: Examples,
    teacher: Teacher,
    checkpoints: Checkpoints,
) -> Begun:
    """A copy of `heavy` that is cut to the budget and repaired. Raises BudgetError."""
    plan, network = prune(heavy, settings, budget, examples, teacher, checkpoints)
    return Begun(heavy.network, plan, network, lambda: _full(teacher, heavy, plan, examples, settings))


def trained(
    begun: Begun, settings: StudentSettings, examples: Examples, teacher: Teacher, checkpoints: Checkpoints
) -> Student:
    """Raises TrainError."""
    made = train_student(begun.network, settings, examples, teacher, checkpoints, begun.teacher)
    return Student(begun, *made)


def tried(begun: Begun, settings: StudentSettings, examples: Examples, checkpoints: Checkpoints) -> Network:
    """Distilled alone. Raises TrainError."""
    return checkpoints.once(
        "distil",
        lambda: _fit(begun.network, examples, begun.teacher(), settings.distil, "distil", checkpoints),
        Network.to_state,
        Network.from_state,
        together=True,
    )


def _full(
    teacher: Teacher, heavy: Segmenter, plan: PrunePlan, examples: Examples, settings: StudentSettings
) -> Teacher:
    return with_features(teacher, heavy, plan, examples, settings.features, settings.distil.size, settings.seed)


def prune(
    heavy: Segmenter,
    settings: StudentSettings,
    budget: Budget,
    examples: Examples,
    teacher: Teacher,
    checkpoints: Checkpoints,
) -> tuple[PrunePlan, Network]:
    """The plan and the network that is cut to it and repaired, in as many steps as the plan has cuts.

    With more than one the sizes shrink by the same factor each time. The network is repaired towards the heavy one's
    activations after every cut and distilled before the next, which is planned on what it has become (iterative
    pruning, Han et al. 2015, arXiv 1506.02626); so what a cut keeps is always a part of what the one before kept.
    """
    net, channels = heavy.folded, heavy.channels
    plan = PrunePlan(channels.whole(), 0)
    for number in range(1, settings.plan.cuts + 1):
        done = number / settings.plan.cuts
        tag = "" if done == 1 else f"-{number}"
        plan, inside = _next_cut(heavy, net, channels, plan, done, tag, settings, budget, examples, checkpoints)
        net, channels = without(net, channels, plan.gone)
        narrower = cut(net, channels, inside)
        check_cut(net, narrower, channels, inside, _picture(net, settings, examples))
        channels = channels.narrowed(inside)
        net = _repaired(heavy, narrower, plan, tag, settings, examples, checkpoints)
        if done < 1 and settings.between.schedule:
            net = _trained_between(heavy, net, plan, tag, settings, examples, teacher, checkpoints)
    return plan, net


def _picture(net: Network, settings: StudentSettings, examples: Examples) -> Tensor:
    """One of those that the plan is made with, as the network reads it."""
    return net.real(random_pixels(examples, 1, settings.plan.size, settings.seed + 1))


def _next_cut(
    heavy: Segmenter,
    net: Network,
    channels: Channels,
    before: PrunePlan,
    done: float,
    tag: str,
    settings: StudentSettings,
    budget: Budget,
    examples: Examples,
    checkpoints: Checkpoints,
) -> tuple[PrunePlan, dict[str, tuple[int, ...]]]:
    """What to keep of `net`, whose `channels` the plan `before` left: as a plan of the heavy network's channels, and by
    group in channels of `net`. `done`: the share of the cuts that are made with this one."""

    def chosen() -> PrunePlan:
        inside = _next_plan(heavy, net, channels, done, settings, budget, examples)
        nothing: dict[str, tuple[int, ...]] = dict.fromkeys(before.kept, ())
        kept = {name: tuple(before.kept[name][i] for i in picked) for name, picked in inside.kept.items()}
        return replace(inside, kept=nothing | kept)

    plan = checkpoints.once(f"plan{tag}", chosen, asdict, _restored_plan)
    inside = {name: tuple(before.kept[name].index(channel) for channel in kept) for name, kept in plan.kept.items()}
    return plan, inside


def _repaired(
    heavy: Segmenter,
    narrower: Network,
    plan: PrunePlan,
    tag: str,
    settings: StudentSettings,
    examples: Examples,
    checkpoints: Checkpoints,
) -> Network:
    def repaired() -> Network:
        checkpoints.history.add("cut", held_out_iou(narrower, examples))
        if not settings.repair.images:
            return narrower
        pixels = random_pixels(examples, settings.repair.images, settings.repair.size, settings.seed)
        result = repair(heavy.network, narrower, heavy.channels, plan.kept, pixels)
        checkpoints.history.add("repair", held_out_iou(result, examples))
        return result

    return checkpoints.once(f"repair{tag}", repaired, Network.to_state, Network.from_state)


def _trained_between(
    heavy: Segmenter,
    net: Network,
    plan: PrunePlan,
    tag: str,
    settings: StudentSettings,
    examples: Examples,
    teacher: Teacher,
    checkpoints: Checkpoints,
) -> Network:
    def distilled() -> Network:
        full = _full(teacher, heavy, plan, examples, settings)
        return _fit(net, examples, full, settings.between, "between", checkpoints, tag)

    return checkpoints.once(f"between{tag}", distilled, Network.to_state, Network.from_state, together=True)


def _next_plan(
    heavy: Segmenter,
    net: Network,
    channels: Channels,
    done: float,
    settings: StudentSettings,
    budget: Budget,
    examples: Examples,
) -> PrunePlan:
    """In channels of `net`. Of several cuts each saves the same share of the bytes, and of the work, that are left."""
    assert budget.size_bytes is not None
    whole, how = heavy.folded, settings.planning
    damage = _damage(heavy, None if net is whole else net, channels, settings, examples)
    heavy_macs = Workload(whole, heavy.channels).macs(heavy.channels.widths())
    most = settings.plan.macs_share if budget.macs is None else min(settings.plan.macs_share, budget.macs / heavy_macs)
    share = min(1.0, most**done * heavy_macs / Workload(net, channels).macs(channels.widths()))
    if done == 1:
        branches = {}
        if settings.plan.branches and settings.plan.method == "damage" and budget.latency_ms is not None:
            branches = _branches(heavy, None if net is whole else net, settings, examples)
        return plan_cut(net, channels, damage, how, budget, share, branches)
    whole_bytes = predicted_bytes(whole, heavy.channels, heavy.channels.widths())
    size_bytes = round(whole_bytes * (budget.size_bytes / whole_bytes) ** done)
    return planned(net, channels, damage, how, size_bytes, share)


def train_student(
    network: Network,
    settings: StudentSettings,
    examples: Examples,
    teacher: Teacher,
    checkpoints: Checkpoints,
    with_features: Callable[[], Teacher],
) -> tuple[Network, QuantizedNetwork]:
    """The network distilled, and its int8 twin trained on; `with_features` is the teacher of the distillation, with
    what is compared inside. Raises TrainError."""
    student = network
    if settings.distil.schedule:

        def distilled() -> Network:
            with checkpoints.stage("features"):
                full = with_features()
            return _fit(network, examples, full, settings.distil, "distil", checkpoints)

        student = checkpoints.once("distil", distilled, Network.to_state, Network.from_state, together=True)

    def int8() -> QuantizedNetwork:
        result, iou = calibrated(student, examples, settings.planning, settings.worst_float_within)
        checkpoints.history.add("ptq", iou)
        return result

    quantized = checkpoints.once("ptq", int8, QuantizedNetwork.to_state, QuantizedNetwork.from_state)
    if not settings.qat.schedule:
        return student, quantized
    return student, checkpoints.once(
        "qat",
        lambda: _fit(quantized, examples, teacher, settings.qat, "qat", checkpoints),
        QuantizedNetwork.to_state,
        QuantizedNetwork.from_state,
        together=True,
    )


def _damage(
    heavy: Segmenter, net: Network | None, channels: Channels, settings: StudentSettings, examples: Examples
) -> dict[str, GroupDamage]:
    """Of `net`, whose `channels` these are, or where it is None of the heavy network."""
    if settings.plan.method != "damage":
        return {}
    pixels = _planned_on(settings, examples)
    if net is None:
        return known_damage(heavy, pixels, examples.multilabel, cache_folder())
    return measure_damage(net, channels, [net.real(one[None]) for one in pixels], examples.multilabel)


def _branches(
    heavy: Segmenter, net: Network | None, settings: StudentSettings, examples: Examples
) -> dict[Branch, float]:
    """Of `net`, or where it is None of the heavy network."""
    pixels = _planned_on(settings, examples)
    if net is None:
        return known_branches(heavy, pixels, examples.multilabel, cache_folder())
    return measure_branches(net, [net.real(one[None]) for one in pixels], examples.multilabel)


def _planned_on(settings: StudentSettings, examples: Examples) -> Tensor:
    return random_pixels(examples, settings.plan.images, settings.plan.size, settings.seed + 1)


def _restored_plan(state: dict[str, Any]) -> PrunePlan:
    kept = {name: tuple(kept) for name, kept in state["kept"].items()}
    return PrunePlan(kept, state["predicted_bytes"], tuple(Branch(*each) for each in state.get("gone", ())))


def _fit(
    net: Net,
    examples: Examples,
    teacher: Teacher,
    training: Training,
    stage: str,
    checkpoints: Checkpoints,
    tag: str = "",
) -> Net:
    best = fit(
        net,
        examples,
        teacher,
        training,
        desc=stage + tag,
        on_check=lambda minutes, iou, loss: checkpoints.history.add(stage, iou, minutes, loss),
        state=checkpoints.state(stage + tag),
    )
    checkpoints.history.end_training()
    return best
