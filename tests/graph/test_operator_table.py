"""What holds of every operator in the table, each in a small network of its own between two convolutions."""

from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from masked import every_other, masked
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from unary_cases import UNARY

from compress.errors import ExportError, ModelError
from compress.formats.onnx import to_onnx
from compress.formats.source import to_source, to_weights
from compress.formats.tflite import to_tflite
from compress.graph import operators
from compress.graph.channels import find_groups
from compress.graph.network import Network, Node
from compress.graph.operators import OPERATORS
from compress.graph.operators.conv import ConvAttributes
from compress.graph.operators.image import ImageAttributes
from compress.graph.operators.operator import OnSteps
from compress.graph.quantized import QuantizedOperator
from compress.load.trace import fold_normalisation, trace
from compress.prune.cost import MACS, Workload
from compress.prune.cut import check_cut, cut
from compress.prune.importance import measure_damage
from compress.quantize.calibration import calibrate
from compress.quantize.convert import float_graph, quantized_graph
from compress.quantize.placement import place
from compress.quantize.simulate import simulate
from compress.quantize.training import QuantizedNetwork
from compress.runtime.macs import count_macs
from compress.runtime.session import open_model

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SIZE = (12, 16)


class Between(nn.Module):
    """Two convolutions of what is read, joined by `middle`, then a class map."""

    def __init__(self, middle: nn.Module):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 16, 3, padding=1)
        self.middle = middle
        self.last = nn.Conv2d(32 if middle in (MODULES["concat"], MODULES["concat sigmoid"]) else 16, 3, 1)

    def forward(self, x):
        return self.last(self.middle(self.first(x), self.second(x)))


class Joining(nn.Module):
    """A function of both."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, a, b):
        return self.function(a, b)


class Adding(nn.Module):
    """A module of the first, and then `after`, added to the second."""

    def __init__(self, module: nn.Module, after: nn.Module | None = None):
        super().__init__()
        self.module, self.after = module, after or nn.Identity()

    def forward(self, a, b):
        return self.after(self.module(a)) + b


class Attended(nn.Module):
    """A map of one channel over all channels of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv2d(16, 1, 1)

    def forward(self, a, b):
        return torch.sigmoid(self.map(b)) * a


class OverChannels(nn.Module):
    """Layer normalisation of each pixel's channels."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(16)

    def forward(self, x):
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Attending(nn.Module):
    """Every pixel to every fourth one."""

    def forward(self, x):
        small = F.max_pool2d(x, 4)
        query, key, value = (each.flatten(2).transpose(1, 2).unflatten(2, (2, 8)).transpose(1, 2)
                             for each in (x, small, small))  # fmt: skip
        scores = torch.softmax(query @ key.transpose(2, 3) * 8**-0.5, -1)
        return (scores @ value).transpose(1, 2).flatten(2).transpose(1, 2).unflatten(2, x.shape[2:])


def before_a_convolution(module: nn.Module) -> nn.Module:
    """None of whose channels can be cut; those of what reads it can."""
    return Adding(nn.Sequential(module, nn.Conv2d(16, 16, 1)))


def halved_and_resized(mode: str, **more) -> nn.Module:
    return Adding(nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode=mode, **more))


def in_windows(x):
    """Each window of 4x4 pixels for itself."""
    apart = x.unflatten(3, (4, 4)).unflatten(2, (3, 4)).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, 2, 8).transpose(1, 2)
    attended = F.scaled_dot_product_attention(apart, apart, apart, torch.linspace(-1, 1, 512).view(2, 16, 16))
    together = attended.transpose(1, 2).reshape(-1, 3, 4, 4, 4, 16).permute(0, 5, 1, 3, 2, 4)
    return together.reshape(-1, 16, *SIZE)


class Of(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def shuffled(x):
    return torch.cat([F.max_pool2d(F.pixel_shuffle(x, 2), 2)] * 4, 1)


def unpooled(a, b):
    values, places = F.max_pool2d(b, 2, return_indices=True)
    return F.max_unpool2d(F.max_pool2d(a, 2) + values, places, 2)


MODULES = {
    "conv": Adding(nn.Conv2d(16, 16, 3, padding=2, dilation=2)),
    "conv depthwise": Adding(nn.Conv2d(16, 16, 3, padding=1, groups=16)),
    "conv_transpose": Adding(nn.ConvTranspose2d(16, 16, 2, stride=2), nn.MaxPool2d(2)),
    "add": Joining(lambda a, b: a + b),
    "mul": Joining(lambda a, b: a * b),
    "sub": Joining(lambda a, b: a - b),
    "instance_norm": Adding(nn.InstanceNorm2d(16, affine=True)),
    "group_norm": before_a_convolution(nn.GroupNorm(4, 16)),
    "layer_norm": before_a_convolution(OverChannels()),
    "attention": before_a_convolution(Attending()),
    "attention in windows": before_a_convolution(Of(in_windows)),
    "arrange": before_a_convolution(Of(shuffled)),
    "arrange_pixels": before_a_convolution(Of(lambda x: x.unflatten(2, (3, 4)).transpose(2, 3).flatten(2, 3))),
    "roll": Adding(Of(lambda x: x.roll((2, -3), (2, 3)))),
    "channel_max": Joining(lambda a, b: a.amax(1, keepdim=True) * b),
    "local_affine": before_a_convolution(Of(lambda x: x * torch.linspace(0.5, 2, 16) + 1)),
    "unpool": Joining(unpooled),
    "concat": Joining(lambda a, b: torch.cat([a, b], 1)),
    "mul by one channel": Attended(),
    "concat sigmoid": Joining(lambda a, b: torch.cat([a + b, torch.sigmoid(b)], 1)),
    "max_pool": Joining(lambda a, b: F.max_pool2d(a + b, 3, 1, 1)),
    "avg_pool": Joining(lambda a, b: F.avg_pool2d(a + b, 3, 1, 1, count_include_pad=False)),
    "avg_pool counting padding": Joining(lambda a, b: F.avg_pool2d(a + b, 3, 1, 1)),
    "adaptive_pool": Adding(nn.AdaptiveAvgPool2d((3, 4)), nn.Upsample(SIZE)),
    "adaptive_pool uneven": Adding(nn.AdaptiveAvgPool2d((5, 3)), nn.Upsample(SIZE)),
    "mean": Joining(lambda a, b: a * b.mean((2, 3), keepdim=True)),
    "resize": halved_and_resized("bilinear"),
    "resize nearest": halved_and_resized("nearest"),
    "resize aligned": halved_and_resized("bilinear", align_corners=True),
    "bicubic": halved_and_resized("bicubic"),
    "bicubic aligned": halved_and_resized("bicubic", align_corners=True),
    "pad": Adding(nn.ZeroPad2d((1, 0, 0, 1)), nn.MaxPool2d(2, 1)),
    "relu": Adding(nn.ReLU()),
    "relu6": Adding(nn.ReLU6()),
    "sigmoid": Joining(lambda a, b: torch.sigmoid(a) * b),
    "softmax": before_a_convolution(nn.Softmax(1)),
    **{
        f"{name} {case}".strip(): Adding(module)
        for name, unary in UNARY.items()
        for case, module in unary.modules.items()
    },
}


def built(case: str) -> Between:
    torch.manual_seed(1)
    module = Between(MODULES[case]).eval()
    for layer in module.middle.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.reset_parameters()
    return module


def traced(module) -> Network:
    return trace(module, SIZE, 0, 3, MEAN, STD)[0]


def pixels(seed: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *SIZE, 3), dtype=torch.uint8, generator=generator)


def op_of(case: str) -> str:
    return case.split()[0]


def test_every_operator_has_a_case_here():
    assert {op_of(case) for case in MODULES} == set(OPERATORS) - {"input"}


@pytest.mark.parametrize("case", MODULES)
def test_the_traced_network_is_the_module(case):
    module = built(case)
    net = traced(module)
    assert op_of(case) in {node.op for node in net.nodes}
    image = pixels(0, 2)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        wanted = torch.softmax(module((image.permute(0, 3, 1, 2).float() / 255 - mean) / std), 1)
        torch.testing.assert_close(net(net.real(image)), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("case", MODULES)
def test_as_plain_torch_it_computes_the_same_at_other_sizes_too_and_all_its_weights_learn(case):
    net = fold_normalisation(traced(built(case)))
    graph, written = float_graph(net, "one"), {}
    exec(to_source(graph, ("a", "b", "c")), written)
    student = written["Student"]()
    student.load_state_dict({name: torch.from_numpy(values) for name, values in to_weights(graph).items()})
    of_one_size = any(node.attrs.stored_bytes() for node in net.nodes)
    for image in (pixels(0, 2), *([] if of_one_size else [pixels(0, 2).repeat(1, 2, 2, 1)])):
        given = student(image.permute(0, 3, 1, 2))
        torch.testing.assert_close(given, net(net.real(image)), atol=1e-5, rtol=1e-4)
    given[:, 1].log().mean().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in student.parameters())


@pytest.mark.parametrize("case", MODULES)
def test_the_cut_network_is_the_one_whose_other_channels_are_silent(case):
    net = fold_normalisation(traced(built(case)))
    channels = find_groups(net)
    kept = {group.name: every_other(group) for group in channels.groups.values()}
    assert any(len(kept[group.name]) < group.width for group in channels.groups.values())
    image, small = net.real(pixels(0)), cut(net, channels, kept)
    check_cut(net, small, channels, kept, image)
    with torch.no_grad():
        torch.testing.assert_close(small(image), masked(net, channels, kept, image), atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module", params=MODULES)
def quantized(request):
    """A fake-quantized network, its graph, whose scales it then has, and an image."""
    net = fold_normalisation(traced(built(request.param)))
    image = pixels(2)
    twin = QuantizedNetwork(net, calibrate(net, [net.real(image)], 100.0)).eval()
    graph = quantized_graph(twin, "one")
    with torch.no_grad():  # those of sums were moved
        for tensor, group in twin.placement.group_of.items():
            if (log := twin.log_scales.get(group.replace(".", "/"))) is not None and tensor in graph.tensors:
                log.copy_(torch.tensor(graph.tensors[tensor].scale).log())
    return request.param, twin, graph, image


def test_training_computes_the_integers_of_the_graph(quantized):
    case, net, graph, image = quantized
    wanted = simulate(graph, image.permute(0, 3, 1, 2).numpy())
    with torch.no_grad():
        values = net.run(net.real(image), keep=set(wanted))
    for name, integers in wanted.items():
        unit = net.unit(name)
        steps = (values[name] / net.scale(unit)).round() + net.zero_point(unit)
        apart = np.abs(steps.detach().numpy() - integers)
        # averages of integers often are ties, which fall either way, here and in what reads them
        averages = OPERATORS[op_of(case)].on_steps is OnSteps.AVERAGES or "norm" in case
        assert np.mean(apart <= 1 + averages) >= (0.99 if averages else 0.999), (case, name)
        assert np.mean(apart) < (0.7 if averages else 0.02), (case, name)


@pytest.mark.parametrize("write", [to_onnx, to_tflite])
def test_both_files_give_the_integers_of_the_graph(quantized, write, tmp_path):
    case, _, graph, image = quantized
    path = tmp_path / f"model.{write.__name__.removeprefix('to_')}"
    write(graph, path)
    given = open_model(path, threads=1).probabilities(image[0].numpy())
    spec = graph.tensors[graph.output]
    wanted = (simulate(graph, image.permute(0, 3, 1, 2).numpy())[graph.output][0].astype(int) - spec.zero_point) / 256
    apart = np.abs(given - wanted) * 256
    assert apart.mean() < 0.5, case
    assert np.mean(apart <= 2) > 0.99, case


@pytest.mark.parametrize("write", [to_onnx, to_tflite])
def test_both_files_have_the_multiply_accumulates_that_are_predicted(quantized, write, tmp_path):
    """More only where a file computes by products of matrices what the planner counts as values that are moved."""
    case, net, graph, _ = quantized
    path = tmp_path / f"model.{write.__name__.removeprefix('to_')}"
    write(graph, path)
    channels = find_groups(net)
    predicted = 1e6 * Workload(net, channels).total(channels.widths())[:MACS].sum()
    more = case in ("unpool", "adaptive_pool uneven") or ("bicubic" in case and write is to_tflite)
    assert count_macs(path) > predicted if more else count_macs(path) == pytest.approx(predicted)


@pytest.mark.parametrize("case", MODULES)
def test_predicted_multiply_accumulates_are_those_that_torch_counts(case):
    net = fold_normalisation(traced(built(case)))
    channels = find_groups(net)
    work = Workload(net, channels).total({group.name: group.width for group in channels.groups.values()})
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(net.real(pixels(0)))
    assert 2e6 * work[:MACS].sum() == pytest.approx(counter.get_total_flops())


@pytest.mark.parametrize("case", MODULES)
def test_damage_is_finite_for_every_group(case):
    net = fold_normalisation(traced(built(case)))
    channels = find_groups(net)
    damage = measure_damage(net, channels, [net.real(pixels(seed)) for seed in range(2)])
    assert set(damage) == {group.name for group in channels.prunable()}
    assert all(np.isfinite(one.damage).all() for one in damage.values())


@pytest.mark.parametrize("name", OPERATORS)
def test_attributes_come_back_from_plain_values(name):
    kind = OPERATORS[name].attributes
    values = {field.name: 1.5 for field in fields(kind)}
    assert asdict(kind(**values)) == values


def test_an_operator_that_is_not_in_the_table_is_refused_where_a_node_is_made():
    with pytest.raises(ModelError, match="warp: there is no operator 'grid_sample'"):
        Node("warp", "grid_sample", ("image",))
    with pytest.raises(ExportError, match="warp: there is no operator 'grid_sample'"):
        QuantizedOperator("grid_sample", "warp", ("image",), "warp")
    with pytest.raises(ModelError, match="c: conv has ConvAttributes"):
        Node("c", "conv", ("image",), {"stride": (1, 1)})


@pytest.mark.parametrize(
    ("field", "stage"),
    [
        ("channels", lambda net: find_groups(net)),
        ("scale", lambda net: place(net)),
        ("on_steps", lambda net: QuantizedNetwork(net, {"c": (0.0, 1.0), "r": (0.0, 1.0)})(torch.zeros(1, 3, 2, 2))),
        ("work", lambda net: Workload(net, find_groups(net)).total({"image": 3, "c": 2})),
    ],
)
def test_no_stage_has_a_default_for_an_operator_that_says_something_unknown(field, stage, monkeypatch):
    strange = replace(OPERATORS["tanh"], name="strange", scale=OPERATORS["conv"].scale, fixed=None)
    monkeypatch.setitem(operators.OPERATORS, "strange", strange)
    nodes = [
        Node("image", "input", (), ImageAttributes(1 / 255, 0, (2, 2))),
        Node("c", "conv", ("image",), ConvAttributes()),
        Node("r", "strange", ("c",)),
    ]
    net = Network(nodes, {"c": (torch.zeros(2, 3, 1, 1), torch.zeros(2))}, "r")
    stage(net)
    monkeypatch.setitem(operators.OPERATORS, "strange", replace(strange, **{field: "guess"}))
    with pytest.raises(AssertionError):
        stage(net)
