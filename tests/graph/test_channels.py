"""Channel groups of the tiny network, worked out by hand."""

import pytest
import torch
from tiny import TinyNet

from compress.graph.channels import find_groups
from compress.load.trace import fold_normalisation, trace
from compress.prune.cut import cut


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    traced, _ = trace(TinyNet(), (64, 64), 0, 3, (0.0,) * 3, (1.0,) * 3)
    return fold_normalisation(traced)


def test_groups_follow_residual_depthwise_and_concat(net):
    channels = find_groups(net)
    expected = {  # the depthwise convolution passes channels on; the residual ties "down" and the pointwise one
        frozenset({"image"}): (3, "input image"),
        frozenset({"stem"}): (16, ""),
        frozenset({"down", "block.pointwise"}): (32, ""),
        frozenset({"deep"}): (48, ""),
        frozenset({"up"}): (24, ""),
        frozenset({"merge"}): (32, ""),
        frozenset({"head"}): (3, "class map"),
    }
    assert {frozenset(g.producers): (g.width, g.frozen) for g in channels.groups.values()} == expected
    merged = net.by_name["merge"].inputs[0]
    assert channels.segments[merged] == ("stem", "up")


def test_cutting_channels_that_are_zero_changes_nothing(net):
    """An independent check of every index: channels that are dead in the whole group can go without a trace."""
    channels = find_groups(net)
    weights = {name: (weight.clone(), bias.clone()) for name, (weight, bias) in net.weights().items()}
    kept = {}
    for group in channels.groups.values():
        keep = range(group.width) if group.frozen else range(0, group.width, 2)
        kept[group.name] = tuple(keep)
        for producer in group.producers:
            if producer not in weights:
                continue
            weight, bias = weights[producer]
            dead = [c for c in range(group.width) if c not in kept[group.name]]
            if producer == "up":
                weight[:, dead] = 0
            else:
                weight[dead] = 0
            bias[dead] = 0
    # what is dead must also stay dead through the depthwise convolution
    depthwise, bias = weights["block.depthwise"]
    bias[1::2] = 0
    sparse = net.rewritten(weights)
    small = cut(sparse, channels, kept)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(small(x), sparse(x), atol=1e-5, rtol=1e-4)
    assert small.weight("merge").shape == (16, 8 + 12, 3, 3)
    assert small.weight("up").shape == (24, 12, 2, 2)
    assert small.by_name["block.depthwise"].attrs.groups == 16
    assert net.weight("merge").shape == (32, 40, 3, 3)  # the network that was given is untouched
