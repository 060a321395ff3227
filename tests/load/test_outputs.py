"""What a module returns, which of it is deployed, and what is taken off its end."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.errors import ModelError
from compress.load.class_map import tells_labels_apart
from compress.load.draft import Told, draft
from compress.load.model import load
from compress.load.outputs import named
from compress.load.trace import trace

SIZE = (16, 20)
MEAN, STD = (0.0,) * 3, (1.0,) * 3


@dataclass
class Answer:
    score: Tensor
    logits: Tensor
    aux: tuple[Tensor, Tensor] | None = None


Pair = namedtuple("Pair", ["first", "second"])


class Head(nn.Module):
    """A convolution of some channels, and what is made of its map."""

    def __init__(self, end, channels=3):
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.end = nn.Conv2d(3, channels, 3, padding=1), end

    def forward(self, x):
        return self.end(self.conv(x))


def answers(module):
    """The network, as it is deployed by each key, on one picture; and the softmax of the module's own map."""
    torch.manual_seed(4)
    x = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        return x, module.conv(x).softmax(1)


@pytest.mark.parametrize(
    ("end", "key", "names"),
    [
        (lambda y: y, None, ["0"]),
        (lambda y: {"out": y, "aux": 2 * y}, "out", ["out", "aux"]),
        (lambda y: OrderedDict(aux=2 * y, out=y), 1, ["aux", "out"]),
        (lambda y: (2 * y, [3 * y, {"map": y}]), "1.1.map", ["0", "1.0", "1.1.map"]),
        (lambda y: Pair(2 * y, y), "second", ["first", "second"]),
        (lambda y: Answer(y.mean(), y), None, ["score", "logits", "aux"]),
        (lambda y: Answer(y.mean(), 2 * y, (3 * y, y)), "aux.1", ["score", "logits", "aux.0", "aux.1"]),
    ],
)
def test_an_output_is_found_by_its_name_its_place_or_as_the_first_map(end, key, names):
    module = Head(end).eval()
    net, original = trace(module, SIZE, key, 3, MEAN, STD)
    x, wanted = answers(module)
    with torch.no_grad():
        torch.testing.assert_close(net(x), wanted, atol=1e-5, rtol=1e-4)
        assert list(named(module(x))) == names
    assert set(original.outputs) <= set(names)


def test_a_key_that_is_not_there_is_answered_with_those_that_are():
    module = Head(lambda y: {"out": y, "aux": (y.mean((2, 3)), None)})
    wanted = r"output logits does not exist: the model gives out \(1x3x16x20\), aux.0 \(1x3\), aux.1 \(None\); name"
    with pytest.raises(ModelError, match=wanted):
        trace(module, SIZE, "logits", 3, MEAN, STD)
    with pytest.raises(ModelError, match=r"output aux.0 is no map: its shape is 1x3; the model gives out"):
        trace(module, SIZE, "aux.0", 3, MEAN, STD)
    with pytest.raises(
        ModelError, match=r"gives no map \[1, classes, H, W\], but score \(one number\), logits \(1x3\)"
    ):
        trace(Head(lambda y: {"score": y.mean(), "logits": y.mean((2, 3))}), SIZE, None, None, MEAN, STD)


@pytest.mark.parametrize(
    "end",
    [
        lambda y: y.argmax(1),
        lambda y: y.argmax(1, keepdim=True),
        lambda y: y.softmax(1).argmax(1).to(torch.uint8),
        lambda y: torch.max(y, dim=1)[1].unsqueeze(1).float(),
        lambda y: {"score": y.mean(), "mask": y.argmax(1)},
    ],
)
def test_an_argmax_at_the_end_is_taken_off(end, caplog):
    caplog.set_level("INFO", "compress")
    module = Head(end).eval()
    net, _ = trace(module, SIZE, None, 3, MEAN, STD)
    x, wanted = answers(module)
    with torch.no_grad():
        torch.testing.assert_close(net(x), wanted, atol=1e-5, rtol=1e-4)
    assert "the argmax at its end is taken off; its map is deployed" in caplog.text


def test_a_map_beside_a_decision_is_deployed_itself():
    module = Head(lambda y: {"mask": y.argmax(1), "out": y})
    _, original = trace(module, SIZE, None, 3, MEAN, STD)
    assert (original.deployed.name, original.deployed.decision) == ("out", None)


@pytest.mark.parametrize(
    "end",
    [
        lambda y: torch.sigmoid(y) > 0.5,
        lambda y: (torch.sigmoid(y) >= 0.5).squeeze(1).float(),
        lambda y: torch.sigmoid(y).round(),
        lambda y: y > 0,
    ],
)
def test_a_threshold_at_the_end_is_taken_off(end):
    module = Head(end, 1).eval()
    net, _ = trace(module, SIZE, None, 2, MEAN, STD)
    torch.manual_seed(4)
    x = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(net(x)[:, 1:], module.conv(x).sigmoid(), atol=1e-5, rtol=1e-4)


def test_a_threshold_that_a_map_cannot_be_read_at_is_refused():
    with pytest.raises(ModelError, match=r"output 0 decides at 0.3, but its map is read at 0.5; deploy the map before"):
        trace(Head(lambda y: torch.sigmoid(y) > 0.3, 1), SIZE, None, 2, MEAN, STD)


@pytest.mark.parametrize(
    ("end", "told", "several"),
    [
        (torch.sigmoid, None, True),
        (lambda y: F.interpolate(torch.sigmoid(F.avg_pool2d(y, 2)), SIZE, mode="bilinear"), None, True),
        (lambda y: y > 0, None, True),
        (lambda y: y, None, False),
        (lambda y: y.softmax(1), None, False),
        (lambda y: y, True, True),
    ],
)
def test_several_labels_at_once_are_told_by_a_sigmoid_of_each(end, told, several):
    module = Head(end).eval()
    net, original = trace(module, SIZE, None, 3, MEAN, STD, told)
    assert (told or tells_labels_apart(original)) == several
    assert net.by_name[net.output].op == "softmax" or several
    assert net.shapes()[net.output] == (1, 3, *SIZE)
    if told:
        x, _ = answers(module)
        with torch.no_grad():
            torch.testing.assert_close(net(x), module.conv(x).sigmoid(), atol=1e-5, rtol=1e-4)


def test_what_cannot_be_several_labels_is_refused():
    with pytest.raises(ModelError, match=r"output 0 is a softmax, of which labels exclude one another; set multilabel"):
        trace(Head(lambda y: y.softmax(1)), SIZE, None, 3, MEAN, STD, True)
    with pytest.raises(ModelError, match=r"output 0 has 1 channel, but the recipe names 2 labels; name as many"):
        trace(Head(lambda y: y, 1), SIZE, None, 2, MEAN, STD, True)
    with pytest.raises(ModelError, match=r"output 0 has 4 channels, but the recipe names 3 classes; name as many"):
        trace(Head(lambda y: y, 4), SIZE, None, 3, MEAN, STD)
    with pytest.raises(ModelError, match=r"output 0 is 1x1 for an image of 16x20: one class for the whole image"):
        trace(Head(lambda y: y.mean((2, 3), keepdim=True)), SIZE, None, 3, MEAN, STD)


class Odd(Head):
    """Forwards that a deployed model cannot have."""

    def __init__(self, how):
        super().__init__(None)
        self.forward = getattr(self, how)

    def two_inputs(self, x, mask):
        return self.conv(x) * mask

    def branches(self, x):
        y = self.conv(x)
        if y.mean() > 0:
            y = y + 1
        return y

    def counts(self, x):
        return self.conv(x) * int(x.sum().item())

    def raises(self, x):
        raise ValueError("not today\nsecond line")

    def infinite(self, x):
        return self.conv(x) * 1e30 * 1e30


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("two_inputs", r"at 16x20: forward\(\) also reads mask, and a deployed model reads one image alone; give it a"),
        ("branches", r"at 16x20: test_outputs.py:\d+, if y.mean\(\) > 0:: what is done there depends on the values"),
        ("counts", r"at 16x20: test_outputs.py:\d+, return self.conv\(x\) \* int\(x.sum\(\).item\(\)\): what is done"),
        ("raises", r"at 16x20: test_outputs.py:\d+, raise ValueError.*: not today$"),
        ("infinite", r"conv: gives infinite values or NaN for an ordinary picture"),
    ],
)
def test_a_forward_that_cannot_be_deployed_is_named_by_its_line(how, message):
    with pytest.raises(ModelError, match=message) as raised:
        trace(Odd(how), SIZE, None, 3, MEAN, STD)
    assert "\n" not in str(raised.value)


def ends_in_argmax(folder):
    """An ONNX file of a convolution, with its map and the argmax of it."""
    helper = onnx.helper
    module = Head(lambda y: y)
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["logits"], pads=[1, 1, 1, 1]),
        helper.make_node("ArgMax", ["logits"], ["ids"], axis=1, keepdims=1),
        helper.make_node("Cast", ["ids"], ["mask"], to=onnx.TensorProto.UINT8),
    ]
    tensor = helper.make_tensor_value_info
    stored = [
        onnx.numpy_helper.from_array(module.conv.weight.detach().numpy(), "w"),
        onnx.numpy_helper.from_array(module.conv.bias.detach().numpy(), "b"),
    ]
    given = tensor("image", onnx.TensorProto.FLOAT, [1, 3, *SIZE])
    for name, outputs in {"mask": ["mask"], "both": ["mask", "logits"]}.items():
        made = [
            tensor(each, onnx.TensorProto.FLOAT if each == "logits" else onnx.TensorProto.UINT8, None)
            for each in outputs
        ]
        graph = helper.make_graph(nodes, "net", [given], made, stored)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), folder / f"{name}.onnx")
    example = torch.rand(1, 3, *SIZE)
    decided = Head(lambda y: y.argmax(1)).eval()
    torch.jit.trace(decided, example).save(str(folder / "mask.pt"))
    torch.export.save(torch.export.export(decided, (example,)), folder / "mask.pt2")
    return module


def test_files_that_end_in_an_argmax_are_loaded_as_the_map_before_it(tmp_path):
    module = ends_in_argmax(tmp_path)
    x, wanted = answers(module)
    for name, output, deployed in (
        ("mask.onnx", None, "mask"),
        ("mask.pt", None, "0"),
        ("mask.pt2", None, "0"),
        ("both.onnx", None, "logits"),
        ("both.onnx", "mask", "mask"),
    ):
        told = Told(size=SIZE, mean=MEAN, output=output)
        trained = load(tmp_path / name, draft(tmp_path / name, told))
        assert trained.output == deployed
        with torch.no_grad():
            torch.testing.assert_close(trained.network(x), wanted, atol=1e-5, rtol=1e-4)
