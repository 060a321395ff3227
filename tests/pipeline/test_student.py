"""Tuning, and cutting in steps, on the tiny network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compress.budget import Budget
from compress.data.images import RGB
from compress.errors import DataError, RecipeError
from compress.files import cache_folder
from compress.load.model import load
from compress.pipeline import student
from compress.pipeline.checkpoints import Checkpoints, Start
from compress.pipeline.prepare import load_teachers, open_data, prepare, with_features, with_teacher
from compress.pipeline.student import StudentSettings, prune, tune
from compress.prune.branches import Branch, without
from compress.prune.widths import choose
from compress.recipe import Schedule, read_recipe
from compress.train.examples import held_out_iou
from compress.train.members import traced_member

BUDGET = Budget.parse(["20KB"])


def with_plan(recipe, **plan):
    return recipe.model_copy(update={"plan": recipe.plan.model_copy(update=plan)})


@pytest.fixture(scope="module")
def prepared(tiny_model, tiny_data, tmp_path_factory):
    """A recipe of three cuts with two steps of training between them, the heavy model and what there is to learn."""
    tmp = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESS_CACHE", str(tmp))
        recipe = read_recipe(tiny_model.with_suffix(".toml")).with_flags(data=tiny_data, quantize="ptq")
        train = recipe.train.model_copy(update={"steps": 20})
        recipe = with_plan(recipe.model_copy(update={"train": train}), cuts=3)
        heavy = load(tiny_model, recipe)
        dataset, size = open_data(recipe.data, heavy.classes, recipe.seed), heavy.network.traced_size
        teachers = load_teachers(recipe.teacher, traced_member(heavy, tiny_model, RGB))
        data = prepare(teachers, dataset, size, cache_folder(), tta=(), live=False, seed=recipe.seed)
    return recipe, heavy, data


def half(net, channels, damage, gone):
    """A plan without some branches, of about half the bytes."""
    left, inside = without(net, channels, gone)
    return replace(choose(left, inside, {n: damage[n] for n in damage if n in inside.groups}, 20_000, 1.0), gone=gone)


def opened(folder, resume=False) -> Checkpoints:
    checkpoints = Checkpoints(folder, Start("", {}, "", ""), resume)
    checkpoints.open("identity")
    return checkpoints


def pruned(recipe, heavy, data, checkpoints):
    return prune(heavy, StudentSettings.of(recipe, BUDGET), BUDGET, data.examples, data.teacher, checkpoints)


@pytest.fixture(scope="module")
def stepwise(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    checkpoints = opened(folder)
    plan, net = pruned(*prepared, checkpoints)
    return folder, checkpoints, plan, net


def test_every_cut_keeps_a_part_of_what_the_one_before_kept(stepwise):
    folder, _, final, _ = stepwise
    first, second = (torch.load(folder / f"plan-{number}.pt", weights_only=True)["state"] for number in (1, 2))
    for name, kept in final.kept.items():
        assert set(kept) <= set(second["kept"][name]) <= set(first["kept"][name])
    assert first["predicted_bytes"] > second["predicted_bytes"] > final.predicted_bytes
    assert final.predicted_bytes <= 20_000


def test_it_is_repaired_after_every_cut_and_distilled_before_the_next(stepwise):
    _, checkpoints, _, _ = stepwise
    stages = [point.stage for point in checkpoints.history.points]
    once = [stage for stage, before in zip(stages, [None, *stages]) if stage != before]
    assert once == ["cut", "repair", "between"] * 2 + ["cut", "repair"]


def test_the_student_in_steps_has_the_plans_channels_and_still_segments(prepared, stepwise):
    _, heavy, data = prepared
    _, _, plan, net = stepwise
    assert net.weight("deep").shape[0] == len(plan.kept["deep"]) < 48
    assert held_out_iou(net, data.examples) > 0.6 * held_out_iou(heavy.network, data.examples)


def test_steps_take_their_training_from_the_distillation(prepared):
    recipe = prepared[0]

    def steps(recipe, stage):
        return recipe.training(stage).schedule.steps

    assert steps(recipe, "between") == 2
    assert steps(recipe, "distil") + 2 * 2 == steps(with_plan(recipe, cuts=1), "distil") == 20


def test_cuts_that_leave_no_training_at_the_end_are_refused(prepared, tmp_path):
    path = tmp_path / "greedy.toml"
    text = "\n[plan]\ncuts = 6\nbetween = 0.2\n"
    path.write_text('name = "n"\n[model]\narchitecture = "a.py:A"\nclasses = ["a", "b"]\n' + text)
    with pytest.raises(RecipeError, match="plan: 5 times 0.2 of the distillation"):
        read_recipe(path)


def test_a_run_that_stopped_after_the_second_cut_goes_on_to_the_same_student(prepared, stepwise):
    folder, _, plan, net = stepwise
    for name in ("plan", "repair"):
        (folder / f"{name}.pt").unlink()
    again_plan, again = pruned(*prepared, opened(folder, resume=True))
    assert again_plan == plan
    assert all(torch.equal(again.weight(node.name), net.weight(node.name)) for node in net.weighted())


def test_without_images_to_repair_with_the_cut_network_stays_as_it_is(prepared, tmp_path):
    recipe, heavy, data = prepared
    repair = recipe.repair.model_copy(update={"images": 0})
    recipe = with_plan(recipe.model_copy(update={"repair": repair}), cuts=1, method="random")
    checkpoints = opened(tmp_path)
    plan, net = pruned(recipe, heavy, data, checkpoints)
    head = heavy.network.weight("head")[:, list(plan.kept["merge"])]
    assert torch.equal(net.weight("head"), head)
    assert [point.stage for point in checkpoints.history.points] == ["cut"]


def test_a_student_without_a_branch_is_repaired_and_compared_with_what_is_left_of_the_heavy_model(
    prepared, tmp_path, monkeypatch
):
    recipe, heavy, data = prepared
    recipe, gone = with_plan(recipe, cuts=1), (Branch("block.add", "block.pointwise"),)
    monkeypatch.setattr(student, "plan_cut", lambda net, channels, damage, *_: half(net, channels, damage, gone))
    checkpoints = opened(tmp_path)
    plan, net = pruned(recipe, heavy, data, checkpoints)
    assert plan.gone == gone
    assert not {"block.pointwise", "block.depthwise"} & set(net.by_name)
    cut_iou, repaired = (point.iou for point in checkpoints.history.points)
    assert repaired > max(cut_iou, 0.6 * held_out_iou(heavy.network, data.examples))
    teacher = with_features(data.teacher, heavy, plan, data.examples, 4, (64, 64), 0)
    assert set(teacher.features.values) <= set(net.by_name)
    again, _ = pruned(recipe, heavy, data, opened(tmp_path, resume=True))
    assert again == plan


@pytest.fixture(scope="module")
def relabelled(prepared, tmp_path_factory):
    """Labels that call what the model sees as class 2 class 1, and the model tuned on them."""
    recipe, heavy, data = prepared
    labels = data.examples.labels
    labels = np.where(labels == 2, np.uint8(1), labels)
    examples = replace(data.examples, labels=labels, references=labels[list(data.examples.held_out)])
    training = replace(recipe.training("tune"), schedule=Schedule(steps=60), learning_rate=2e-2)
    checkpoints = opened(tmp_path_factory.mktemp("tune"))
    better = tune(heavy, training, examples, data.teacher, checkpoints)
    return heavy, replace(data, examples=examples), better, checkpoints


def test_a_model_that_is_tuned_follows_the_labels_where_it_and_they_differ(relabelled):
    heavy, data, better, checkpoints = relabelled
    before, after = (held_out_iou(one.network, data.examples) for one in (heavy, better))
    assert after > before + 0.05
    assert after == pytest.approx(checkpoints.history.points[-1].iou, abs=1e-6)
    assert {point.stage for point in checkpoints.history.points} == {"tune"}


def test_a_tuned_model_is_another_one_with_its_own_identity_and_its_own_channels(relabelled):
    heavy, _, better, _ = relabelled
    assert better.identity != heavy.identity
    assert not hasattr(better, "sha256")  # it is in no file that anybody gave
    assert torch.equal(better.folded.weight("head"), better.network.weight("head"))
    assert not torch.equal(better.folded.weight("head"), heavy.folded.weight("head"))


def test_what_the_tuned_model_says_is_what_is_learned_then(prepared, relabelled, tmp_path):
    recipe, (_, data, better, _) = prepared[0], relabelled
    dataset = open_data(recipe.data, better.classes, recipe.seed)
    maps, pixels = with_teacher(better, data, dataset, tmp_path).stored.maps, data.examples.pixels
    found = better.network(better.network.real(torch.from_numpy(pixels[:1].copy())))
    assert np.abs(maps[0] / 255 - found[0, 1:].detach().numpy()).mean() < 0.005  # bfloat16, and bytes
    assert np.abs(maps[0] / 255 - data.stored.maps[0] / 255).mean() > 0.02


def test_without_a_label_there_is_nothing_to_tune_on(prepared, tmp_path):
    recipe, heavy, data = prepared
    examples = replace(data.examples, labels=data.examples.labels[:0])
    with pytest.raises(DataError, match="no image to learn from has a label"):
        tune(heavy, recipe.training("tune"), examples, data.teacher, opened(tmp_path))


def test_balanced_weights_are_counted_of_the_labels_and_there_must_be_some(prepared, tiny_data, tmp_path):
    recipe, heavy, data = prepared
    assert data.examples.weights == ()
    dataset = open_data(recipe.data, heavy.classes, recipe.seed)

    def weights(dataset, wanted):
        model, size = traced_member(heavy, Path(), RGB), heavy.network.traced_size
        return prepare([model], dataset, size, tmp_path, (), False, recipe.seed, wanted).examples.weights

    background, disc, square = weights(dataset, "balanced")
    assert background < min(disc, square)  # what fills most of every image weighs least
    assert sorted((background, disc, square))[1] == 1.0  # the median
    assert weights(dataset, (1.0, 2.0, 3.0)) == (1.0, 2.0, 3.0)
    without = replace(dataset, train=(), unlabelled=dataset.train)
    with pytest.raises(DataError, match="train.class_weights: no image to learn from has a label to count"):
        weights(replace(without, unlabelled=tuple(replace(one, mask=None) for one in dataset.train)), "balanced")
