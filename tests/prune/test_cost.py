"""The latency model: work counted by hand, prices found again."""

import numpy as np
import pytest
from tiny import TinyNet

from compress.errors import BudgetError
from compress.graph.channels import Channels, find_groups
from compress.graph.network import Network
from compress.load.trace import trace
from compress.prune.cost import WORK, LatencyModel, Workload, fit_latency
from compress.prune.importance import GroupDamage
from compress.prune.widths import LatencyLimit, choose


@pytest.fixture(scope="module")
def tiny() -> tuple[Network, Channels]:
    net, _ = trace(TinyNet().eval(), (32, 32), 0, 3, (0.0,) * 3, (1.0,) * 3)
    return net, find_groups(net)


def full(channels: Channels) -> dict[str, int]:
    return {group.name: group.width for group in channels.groups.values()}


def even(channels: Channels) -> dict[str, GroupDamage]:
    return {
        group.name: GroupDamage(
            tuple(range(group.width)), tuple(float(group.width - k) for k in range(group.width + 1))
        )
        for group in channels.prunable()
    }


def test_the_work_of_convolutions_by_hand(tiny):
    net, channels = tiny
    workload = Workload(net, channels)

    def work(name):
        return {kind: pytest.approx(count * 1e6) for kind, count in workload.of(net.by_name[name], full(channels))}

    assert work("down") == {0: 256 * 32 * 16 * 9, 3: 1024 * 16 + 256 * 32, 6: 32 * 16 * 9}
    assert work("block.depthwise") == {2: 256 * 32 * 9, 3: 2 * 256 * 32, 6: 32 * 9}
    assert work("head") == {1: 1024 * 3 * 32, 3: 1024 * 35, 6: 3 * 32}
    assert work("up") == {0: 256 * 24 * 48 * 4, 3: 256 * 48 + 1024 * 24, 6: 24 * 48 * 4}


def test_the_work_of_other_operators_by_hand_and_rectifiers_are_free(tiny):
    net, channels = tiny
    workload = Workload(net, channels)
    by_op = {node.op: dict(workload.of(node, full(channels))) for node in net.nodes}
    assert by_op["concat"] == {5: pytest.approx(2 * 1024 * 40 / 1e6)}
    assert by_op["resize"] == {4: pytest.approx(256 * 48 / 1e6)}
    assert by_op["max_pool"] == {5: pytest.approx((256 + 64) * 32 / 1e6)}
    assert by_op["relu"] == by_op["input"] == {}


def test_prices_are_found_again_and_never_below_zero():
    rng = np.random.default_rng(0)
    work = rng.uniform(0.5, 2, (24, len(WORK)))
    work[:, 2] = 0  # no depthwise convolution anywhere
    prices = np.array([3.0, 1.0, 0.0, 0.5, 2.0, 0.25, 0.0])
    model = fit_latency(list(work), list(1.5 + work @ prices))
    assert model.prices_ms == pytest.approx(prices, abs=1e-6)
    assert model.constant_ms == pytest.approx(1.5, abs=1e-6)
    assert model.error < 1e-6
    noisy = fit_latency(list(work), list((1.5 + work @ prices) * rng.normal(1, 0.05, 24)))
    assert min(noisy.prices_ms) >= 0
    assert 0.005 < noisy.error < 0.15


def test_a_latency_that_is_met_anyway_changes_nothing(tiny):
    net, channels = tiny
    model = LatencyModel(0.5, (1.0,) * len(WORK), 0.0)
    free = choose(net, channels, even(channels), 30_000, 1.0)
    assert choose(net, channels, even(channels), 30_000, 1.0, LatencyLimit(1000.0, model)) == free


def test_a_latency_that_binds_is_met_with_fewer_bytes(tiny):
    net, channels = tiny
    model = LatencyModel(0.5, (1.0,) * len(WORK), 0.0)
    workload = Workload(net, channels)
    limit = model.predict(workload.total(full(channels))) / 2
    plan = choose(net, channels, even(channels), 10**9, 1.0, LatencyLimit(limit, model))
    widths = {name: len(kept) for name, kept in plan.kept.items()}
    assert 0.8 * limit < model.predict(workload.total(widths)) <= limit


def test_a_latency_that_no_width_meets_names_the_least(tiny):
    net, channels = tiny
    model = LatencyModel(5.0, (1.0,) * len(WORK), 0.0)
    with pytest.raises(BudgetError, match="no student runs in 5 ms: the fastest possible takes about"):
        choose(net, channels, even(channels), 10**9, 1.0, LatencyLimit(5.0, model))
