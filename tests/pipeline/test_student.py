"""Tuning, and cutting in steps, on the tiny network."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from compress.budget import Budget
from compress.errors import DataError, RecipeError
from compress.files import cache_folder
from compress.load.model import load
from compress.pipeline.checkpoints import Journal, Start
from compress.pipeline.student import pruned, tuned
from compress.pipeline.teaching import dataset_of, prepare, taught_by, teachers_of
from compress.recipe import read_recipe
from compress.train.examples import held_out_iou

BUDGET = Budget.parse(["20KB"])


def with_plan(recipe, **plan):
    return recipe.model_copy(update={"plan": recipe.plan.model_copy(update=plan)})


@pytest.fixture(scope="module")
def prepared(tiny_model, tiny_data, tmp_path_factory):
    """A recipe of three cuts with two steps of training between them, the heavy model and the material."""
    tmp = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESS_CACHE", str(tmp))
        recipe = read_recipe(tiny_model.with_suffix(".toml")).with_flags(data=tiny_data, quantize="ptq")
        train = recipe.train.model_copy(update={"steps": 20})
        recipe = with_plan(recipe.model_copy(update={"train": train}), cuts=3)
        heavy = load(tiny_model, recipe)
        material = prepare(teachers_of(recipe, heavy), dataset_of(recipe), recipe, cache_folder())
    return recipe, heavy, material


def journal(folder, resume=False) -> Journal:
    return Journal(folder, Start("", {}, "", ""), resume)


@pytest.fixture(scope="module")
def stepwise(prepared, tmp_path_factory):
    recipe, heavy, material = prepared
    folder = tmp_path_factory.mktemp("steps")
    book = journal(folder)
    book.opened("key")
    plan, net = pruned(heavy, recipe, BUDGET, material.lesson, book)
    return folder, book, plan, net


def test_every_cut_keeps_a_part_of_what_the_one_before_kept(stepwise):
    folder, _, final, _ = stepwise
    first, second = (torch.load(folder / f"plan-{number}.pt", weights_only=True) for number in (1, 2))
    for name, kept in final.kept.items():
        assert set(kept) <= set(second["kept"][name]) <= set(first["kept"][name])
    assert first["predicted_bytes"] > second["predicted_bytes"] > final.predicted_bytes
    assert final.predicted_bytes <= 20_000


def test_it_is_repaired_after_every_cut_and_distilled_before_the_next(stepwise):
    _, book, _, _ = stepwise
    stages = [moment.stage for moment in book.moments]
    once = [stage for stage, before in zip(stages, [None, *stages]) if stage != before]
    assert once == ["cut", "repair", "between"] * 2 + ["cut", "repair"]


def test_the_student_in_steps_has_the_plans_channels_and_still_segments(prepared, stepwise):
    _, heavy, material = prepared
    _, _, plan, net = stepwise
    assert net.weight("deep").shape[0] == len(plan.kept["deep"]) < 48
    assert held_out_iou(net, material.lesson) > 0.6 * held_out_iou(heavy.network, material.lesson)


def test_steps_take_their_training_from_the_distillation(prepared):
    recipe = prepared[0]
    assert recipe.schedule("between")[1] == 2
    assert recipe.schedule("distil")[1] + 2 * 2 == with_plan(recipe, cuts=1).schedule("distil")[1] == 20


def test_cuts_that_leave_no_training_at_the_end_are_refused(prepared, tmp_path):
    path = tmp_path / "greedy.toml"
    text = "\n[plan]\ncuts = 6\nbetween = 0.2\n"
    path.write_text('name = "n"\n[model]\narchitecture = "a.py:A"\nclasses = ["a", "b"]\n' + text)
    with pytest.raises(RecipeError, match="plan: 5 times 0.2 of the distillation"):
        read_recipe(path)


def test_a_run_that_stopped_after_the_second_cut_goes_on_to_the_same_student(prepared, stepwise):
    recipe, heavy, material = prepared
    folder, _, plan, net = stepwise
    for name in ("plan", "repair"):
        (folder / f"{name}.pt").unlink()
    book = journal(folder, resume=True)
    book.opened("key")
    again_plan, again = pruned(heavy, recipe, BUDGET, material.lesson, book)
    assert again_plan == plan
    assert all(torch.equal(again.weight(node.name), net.weight(node.name)) for node in net.weighted())


def test_without_images_to_repair_with_the_cut_network_stays_as_it_is(prepared, tmp_path):
    recipe, heavy, material = prepared
    repair = recipe.repair.model_copy(update={"images": 0})
    recipe = with_plan(recipe.model_copy(update={"repair": repair}), cuts=1, method="random")
    book = journal(tmp_path)
    book.opened("key")
    plan, net = pruned(heavy, recipe, BUDGET, material.lesson, book)
    head = heavy.network.weight("head")[:, list(plan.kept["merge"])]
    assert torch.equal(net.weight("head"), head)
    assert [moment.stage for moment in book.moments] == ["cut"]


@pytest.fixture(scope="module")
def relabelled(prepared, tmp_path_factory):
    """Labels that call what the model sees as class 2 class 1, and the model tuned on them."""
    recipe, heavy, material = prepared
    labels = material.lesson.labels
    lesson = replace(material.lesson, labels=np.where(labels == 2, np.uint8(1), labels))
    recipe = recipe.model_copy(update={"tune": recipe.tune.model_copy(update={"steps": 60, "learning_rate": 2e-2})})
    book = journal(tmp_path_factory.mktemp("tune"))
    book.opened("key")
    return heavy, replace(material, lesson=lesson), tuned(heavy, lesson, recipe, book), book


def test_a_model_that_is_tuned_follows_the_labels_where_it_and_they_differ(relabelled):
    heavy, material, better, book = relabelled
    before, after = (held_out_iou(one.network, material.lesson) for one in (heavy, better))
    assert after > before + 0.05
    assert after == pytest.approx(book.moments[-1].iou, abs=1e-6)
    assert {moment.stage for moment in book.moments} == {"tune"}


def test_what_the_tuned_model_sees_is_what_is_taught_then(relabelled, tmp_path):
    _, material, better, _ = relabelled
    lesson = taught_by(better.network, material, tmp_path).lesson
    seen = better.network(better.network.real(torch.from_numpy(lesson.pixels[:1].copy())))
    assert np.abs(lesson.maps[0] / 255 - seen[0, 1:].detach().numpy()).mean() < 0.005  # bfloat16, and bytes
    assert np.abs(lesson.maps[0] / 255 - material.lesson.maps[0] / 255).mean() > 0.02


def test_without_a_label_there_is_nothing_to_tune_on(prepared, tmp_path):
    recipe, heavy, material = prepared
    lesson = replace(material.lesson, labels=material.lesson.labels[:0])
    with pytest.raises(DataError, match="no image to learn from has a label"):
        tuned(heavy, lesson, recipe, journal(tmp_path))
