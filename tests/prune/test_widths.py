"""Planning: what is kept, and what it costs."""

import pytest
import torch
from tiny import TinyNet

from compress.errors import BudgetError
from compress.graph.channels import find_groups
from compress.graph.network import Network, Node
from compress.graph.operators.conv import ConvAttributes
from compress.graph.operators.image import ImageAttributes
from compress.load.trace import trace
from compress.prune.cost import CHANNEL_BYTES, OPERATOR_BYTES, predicted_bytes
from compress.prune.importance import GroupDamage, _pivoted, measure_damage
from compress.prune.widths import choose

CONV = ConvAttributes()


def two_layers() -> Network:
    """image 3 -> a 16 -> b 24 -> c 2, all 1x1."""
    nodes = [Node("image", "input", (), ImageAttributes(1 / 255, 0, (4, 4)))]
    widths, source = {"a": (16, 3), "b": (24, 16), "c": (2, 24)}, "image"
    for name in widths:
        nodes.append(Node(name, "conv", (source,), CONV))
        source = name
    return Network(nodes, {n: (torch.randn(*w, 1, 1), torch.zeros(w[0])) for n, w in widths.items()}, "c")


def test_predicted_bytes_by_hand():
    net = two_layers()
    channels = find_groups(net)
    widths = {"image": 3, "a": 8, "b": 16, "c": 2}
    weights = 8 * 3 + 16 * 8 + 2 * 16
    assert predicted_bytes(net, channels, widths) == weights + (8 + 16 + 2) * CHANNEL_BYTES + 4 * OPERATOR_BYTES


def test_the_step_that_does_least_damage_for_its_bytes_is_taken():
    net = two_layers()
    channels = find_groups(net)
    flat = GroupDamage(tuple(range(24)), tuple(float(24 - k) / 100 for k in range(25)))
    steep = GroupDamage(tuple(reversed(range(16))), tuple(float(16 - k) for k in range(17)))
    full = {"image": 3, "a": 16, "b": 24, "c": 2}
    plan = choose(net, channels, {"a": steep, "b": flat}, predicted_bytes(net, channels, full) - 1, 1.0)
    assert plan.kept == {"image": (0, 1, 2), "a": tuple(range(16)), "b": tuple(range(16)), "c": (0, 1)}


def test_a_share_of_multiply_accumulates_is_kept_too():
    net, _ = trace(TinyNet().eval(), (64, 64), 0, 3, (0.0,) * 3, (1.0,) * 3)
    channels = find_groups(net)
    even = {
        group.name: GroupDamage(
            tuple(range(group.width)), tuple(float(group.width - k) for k in range(group.width + 1))
        )
        for group in channels.prunable()
    }
    budget = predicted_bytes(net, channels, {group.name: group.width for group in channels.groups.values()}) * 2 // 3
    shapes = net.shapes()

    def macs(plan):
        widths = {name: len(kept) for name, kept in plan.kept.items()}
        return sum(
            shapes[n.name][2] * shapes[n.name][3] * net.weight(n.name)[0, 0].numel() * channels.width(n.name, widths)
            * (1 if n.attrs.groups > 1 else channels.width(n.inputs[0], widths))
            for n in net.weighted()
        )  # fmt: skip

    free, bound = choose(net, channels, even, budget, 1.0), choose(net, channels, even, budget, 0.4)
    whole = choose(net, channels, even, 10**9, 1.0)
    assert macs(bound) <= 0.4 * macs(whole) < macs(free)
    assert bound.predicted_bytes <= budget


def test_multiply_accumulates_are_limited_where_bytes_are_not():
    """16 pixels. Every channel of a costs 3 + 24 of them for each pixel, every one of b 16 + 2."""
    net = two_layers()
    channels = find_groups(net)
    damage = {
        n: GroupDamage(tuple(range(w)), tuple(float(w - k) for k in range(w + 1)))
        for n, w in {"a": 16, "b": 24}.items()
    }
    full = 16 * (16 * 3 + 24 * 16 + 2 * 24)
    kept = {limit: choose(net, channels, damage, 10**9, 1.0, most_macs=limit).kept for limit in (full, full - 1)}
    assert [len(kept[full][name]) for name in "ab"] == [16, 24]
    assert [len(kept[full - 1][name]) for name in "ab"] == [8, 24]
    least = 16 * (8 * 3 + 8 * 8 + 2 * 8)
    assert [len(choose(net, channels, damage, 10**9, 1.0, most_macs=least).kept[name]) for name in "ab"] == [8, 8]
    with pytest.raises(
        BudgetError, match=f"at most {least - 1:,} multiply-accumulates: the narrowest has about {least:,};"
    ):
        choose(net, channels, damage, 10**9, 1.0, most_macs=least - 1)


def test_a_budget_that_no_width_meets_names_the_smallest():
    net = two_layers()
    channels = find_groups(net)
    damage = {n: GroupDamage(tuple(range(w)), (0.0,) * (w + 1)) for n, w in {"a": 16, "b": 24}.items()}
    smallest = predicted_bytes(net, channels, {"image": 3, "a": 8, "b": 8, "c": 2})
    with pytest.raises(BudgetError, match=f"{smallest:,}"):
        choose(net, channels, damage, smallest - 1, 1.0)


def test_a_copy_of_a_kept_channel_does_no_damage():
    """Channels 0 and 1 are equal, channel 2 is their independent half: by hand, two channels explain all."""
    covariance = torch.tensor([[4.0, 4.0, 0.0], [4.0, 4.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    result = _pivoted([covariance], [torch.ones(3, dtype=torch.float64)])
    assert result.damage == pytest.approx((9.0, 1.0, 0.0, 0.0), abs=1e-4)
    assert set(result.order[:2]) in ({0, 2}, {1, 2})


def test_channels_that_the_output_ignores_do_no_damage():
    torch.manual_seed(0)
    net, _ = trace(TinyNet().eval(), (32, 32), 0, 3, (0.0,) * 3, (1.0,) * 3)
    with torch.no_grad():
        net.weight("head")[:, 16:] = 0
    channels = find_groups(net)
    damage = measure_damage(net, channels, [torch.rand(2, 3, 32, 32)])
    assert damage["merge"].damage[16] < 1e-3 * damage["merge"].damage[0]
    assert damage["merge"].damage[8] > 0
