"""Convolutions as depthwise and pointwise ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TinyNet

from compress.budget import Budget
from compress.errors import RecipeError
from compress.formats.metadata import Card
from compress.graph.channels import find_groups
from compress.judge.verify import compare
from compress.load.trace import fold_normalisation, trace
from compress.pipeline.plan import PlanSettings, plan_cut
from compress.prune.cost import Workload
from compress.prune.cut import check_cut, cut
from compress.prune.factorise import factorised, measure_factors, nested
from compress.prune.importance import measure_damage
from compress.prune.repair import repair
from compress.quantize.calibration import calibrate
from compress.quantize.convert import quantized_graph
from compress.quantize.training import QuantizedNetwork
from compress.recipe import read_recipe
from compress.release.export import FileSettings, write_files

SETTINGS = PlanSettings(
    "damage", FileSettings(Card("tiny", labels=("background", "disc", "square")), ("onnx", "tflite"))
)


def traced(net: TinyNet):
    return fold_normalisation(trace(net.eval(), (32, 32), 0, 3, (0.0,) * 3, (1.0,) * 3)[0])


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return traced(TinyNet())


@pytest.fixture(scope="module")
def pixels():
    return torch.randint(0, 256, (12, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def images(net, pixels):
    return [net.real(one[None]) for one in pixels]


@pytest.fixture(scope="module")
def factors(net, images):
    return measure_factors(net, images)


@pytest.fixture(scope="module")
def damage(net, images):
    return measure_damage(net, find_groups(net), images)


def test_every_plain_convolution_with_a_kernel_can_be_factorised(factors):
    assert set(factors) == {"stem", "down", "deep", "merge"}  # not depthwise, 1x1 or transposed ones


def test_filters_of_rank_1_lose_nothing_with_stride_and_dilation(net, images):
    """Every output channel reads an input channel through the same filter, but for its strength."""
    generator = torch.Generator().manual_seed(1)
    weights = net.weights()
    for name in ("down", "deep", "merge"):
        outputs, inputs, *kernel = weights[name][0].shape
        shared, strength = (
            torch.randn(*size, generator=generator) for size in ((1, inputs, *kernel), (outputs, inputs))
        )
        weights[name] = 0.1 * shared * strength[:, :, None, None], weights[name][1]
    exact = net.rewritten(weights)
    found = measure_factors(exact, images)
    narrow, _ = factorised(exact, find_groups(exact), {name: found[name] for name in ("down", "deep", "merge")})
    assert [node.attrs.stride for node in narrow.nodes if node.name.startswith("down")] == [(2, 2), (1, 1)]
    with torch.no_grad():
        wanted, given = (one.run(images[0], keep={"merge", "head"}) for one in (exact, narrow))
    for name in ("merge", "head"):
        torch.testing.assert_close(given[name], wanted[name], atol=1e-3 * float(wanted[name].abs().max()), rtol=0)
    assert found["merge"].damage < 1e-3 * found["stem"].damage


def test_groups_of_channels_stay_what_they_are(net, factors):
    narrow, channels = factorised(net, find_groups(net), factors)
    assert channels == find_groups(narrow)
    assert channels.groups == find_groups(net).groups
    assert list(narrow.by_name)[:3] == ["image", "stem.depthwise", "stem"]


def test_those_that_cost_least_for_what_they_save_come_first(net, factors):
    """Of the multiply-accumulates of 9 taps, I inputs and O outputs, 9 I + I O are left of 9 I O."""
    saved = {
        "stem": 1024 * 3 * (9 * 16 - 9 - 16),
        "down": 256 * 16 * (9 * 32 - 9 - 32),
        "deep": 64 * 32 * (9 * 48 - 9 - 48),
        "merge": 1024 * 40 * (9 * 32 - 9 - 32),
    }
    costs = {"deep": 1.0, "stem": 2.0, "down": 8.0, "merge": 1000.0}
    sets = list(nested(net, {name: replace(factors[name], damage=cost) for name, cost in costs.items()}))
    assert [saved["deep"], saved["stem"], saved["down"]] == [768_000, 365_568, 1_011_712]
    three = ["deep", "stem", "down"]  # save more than an eighth and less than two
    assert list(map(list, sets)) == [[], three, *[[*three, "merge"]] * 7]
    dear = costs | {"merge": 1.0}
    sets = list(nested(net, {name: replace(factors[name], damage=cost) for name, cost in dear.items()}))
    assert list(map(list, sets)) == [[], *[["merge"]] * 6, ["merge", "deep"], ["merge", "deep", "stem", "down"]]


def test_it_is_cut_and_repaired_towards_the_network_that_it_came_from(net, pixels, images, factors):
    channels = find_groups(net)
    kept = {g.name: tuple(range(g.width if g.frozen else g.width // 2)) for g in channels.groups.values()}
    narrow, inside = factorised(net, channels, factors)
    student = cut(narrow, inside, kept)
    check_cut(narrow, student, inside, kept, images[0])
    repaired = repair(net, student, channels, kept, pixels)
    with torch.no_grad():
        wanted = net.run(images[1], keep={"head"})["head"]
        before, after = (
            (one.run(images[1], keep={"head"})["head"] - wanted).square().mean() for one in (student, repaired)
        )
    assert after < 0.6 * before


def planned(net, damage, factors, *budget):
    return plan_cut(net, find_groups(net), damage, SETTINGS, Budget.parse(list(budget)), 1.0, factors)


def test_the_planner_takes_it_only_where_a_limit_of_work_binds(net, damage, factors):
    """Were it free, and were it dear."""
    free, dear = ({name: replace(each, damage=cost) for name, each in factors.items()} for cost in (0.0, 1e9))
    whole = Workload(net, find_groups(net)).macs(find_groups(net).widths())
    limit = f"macs<={whole / 5e6:.1f}M"
    assert planned(net, damage, free, "22KB").factors == {}
    assert planned(net, damage, free, "22KB", f"macs<={whole / 1e6:.1f}M").factors == {}
    assert planned(net, damage, dear, "40KB", limit).factors == {}
    bound = planned(net, damage, free, "40KB", limit)
    assert set(bound.factors) == set(factors)
    workload = Workload(*factorised(net, find_groups(net), bound.factors))
    widths = {name: len(kept) for name, kept in bound.kept.items()}
    assert 0.5 * whole / 5 < workload.macs(widths) <= whole / 5


def test_a_limit_of_latency_is_met_by_factorising_too(net, damage, factors):
    """On a device on which a file takes a millisecond for each kilobyte."""

    def timer(files):
        return {name: path.stat().st_size / 1000 for name, path in files.items()}

    free = {name: replace(each, damage=0.0) for name, each in factors.items()}
    budget = Budget.parse(["40KB", "14ms"])
    plan = plan_cut(net, find_groups(net), damage, SETTINGS, budget, 1.0, free, fit_timer=timer, check_timer=timer)
    assert plan.factors
    assert plan.predicted_bytes < 17_000


def test_the_exported_files_are_one_network(net, pixels, images, factors, tmp_path):
    narrow, _ = factorised(net, find_groups(net), factors)
    quantized = QuantizedNetwork(narrow, calibrate(narrow, images), ())
    graph = quantized_graph(quantized, "tiny")
    paths = {path.suffix[1:]: path for path in write_files(graph, SETTINGS.files, tmp_path)}
    assert set(paths) == {"onnx", "tflite"}
    parity = compare(graph, paths, np.asarray(pixels[:3]))
    assert parity.passed
    assert any(layer.layer == "merge.depthwise" for layer in parity.layers)


def test_a_plan_that_knows_no_damage_cannot_weigh_it(tmp_path):
    path = tmp_path / "blind.toml"
    plan = '[plan]\nmethod = "uniform"\nfactorise = true\n'
    path.write_text('name = "n"\n[model]\narchitecture = "a.py:A"\nclasses = ["a", "b"]\n' + plan)
    with pytest.raises(RecipeError, match="factorise weighs the damage"):
        read_recipe(path)
