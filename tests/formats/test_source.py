"""The student as text, of graphs whose names come out of hostile files."""

import ast
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from compress.formats.source import to_source, to_weights
from compress.graph.operators.conv import ConvAttributes, ConvTransposeAttributes
from compress.graph.operators.operator import Attributes, literal
from compress.graph.operators.unary import ClampAttributes, GeluAttributes
from compress.graph.quantized import QuantizedGraph, QuantizedOperator, TensorSpec

HOSTILE = (
    "a.b",
    "a_b",
    "class",
    "forward",
    "state.dict",
    "0.conv",
    "__class__",
    "x",
    "pixels",
    "torch",
    "",
    "\u00b5.\u4e2d\u6587",
    "x = 1\nimport os",
    'y"""\n__import__("os").system("id")\n"""',
    "a" * 10_000,
    "{height}",
)


def conv(name, source):
    weight, bias = np.zeros((3, 3, 1, 1), np.float32), np.zeros(3, np.float32)
    return QuantizedOperator("conv", name, (source,), name, ConvAttributes(), weight=weight, bias=bias)


def chain(*operators):
    names = ("image", *(each.output for each in operators))
    tensors = {name: TensorSpec(name, (1, 3, 4, 4)) for name in names}
    return QuantizedGraph("g", {**tensors, "image": TensorSpec("image", (1, 3, 4, 4), 1 / 255, -128)}, operators,
                          "image", names[-1])  # fmt: skip


def calls(text):
    return {ast.unparse(each.func) for each in ast.walk(ast.parse(text)) if isinstance(each, ast.Call)}


def test_a_name_from_a_file_is_an_identifier_in_the_text_and_nothing_else():
    sources = ("image", *HOSTILE)
    graph = chain(*(conv(name, source) for name, source in zip(HOSTILE, sources)))
    taken = dir(nn.Module())
    text = to_source(graph, ('"""', "\\", "ok\u2028"), taken)
    assert "import os" not in text
    assert not {"system", "__import__"} & calls(text)
    assert {each.names[0].name for each in ast.walk(ast.parse(text)) if isinstance(each, ast.Import)} == {"torch"}
    assert max(map(len, text.splitlines())) < 300
    written = {}
    exec(text, written)
    assert written["CLASSES"] == ('"""', "\\", "ok\u2028")
    student = written["Student"]()
    weights = to_weights(graph, taken)
    assert student.load_state_dict({name: torch.from_numpy(each) for name, each in weights.items()})
    assert len(weights) == 2 * len(HOSTILE)
    assert {"a_b.weight", "a_b_2.weight", "class_2.weight", "forward_2.weight", "state_dict_2.weight"} <= set(weights)
    assert student(torch.zeros(2, 3, 4, 4)).shape == (2, 3, 4, 4)


def test_text_among_the_attributes_is_quoted():
    gelu = QuantizedOperator("gelu", "g", ("image",), "g", GeluAttributes('none")or exit("'))
    text = to_source(chain(gelu), ("a", "b"))
    assert "exit" not in calls(text)


@pytest.mark.parametrize(
    "value", [None, True, 3, 0.1, float("inf"), float("-inf"), "bilinear", 'a"b', (1, 2), (1, 1, 2)]
)
def test_a_value_is_read_back_as_what_it_is(value):
    assert eval(literal(value)) == value


def test_of_two_equal_numbers_one_is_written_and_numbers_of_numpy_are_plain():
    assert literal((3, 3)) == "3"
    assert literal((np.int64(2), np.float32(0.5))) == "(2, 0.5)"


def test_layers_say_what_torch_does_not_assume():
    plain, transposed = conv("plain", "image"), np.zeros((3, 1, 2, 2), np.float32)
    attributes = ConvTransposeAttributes(stride=(2, 2), groups=3, output_padding=(1, 0))
    up = QuantizedOperator(
        "conv_transpose", "up", ("plain",), "up", attributes, weight=transposed, bias=np.zeros(3, np.float32)
    )
    text = to_source(chain(plain, up), ("a", "b", "c"))
    assert "self.plain = nn.Conv2d(3, 3, 1)\n" in text
    assert "self.up = nn.ConvTranspose2d(3, 3, 2, stride=2, groups=3, output_padding=(1, 0))\n" in text


STEP = "0.00392157"


@pytest.mark.parametrize(
    ("channels", "read", "said"),
    [
        (1, "grey images [N, 1, H, W]", f"--mean 0 --std {STEP} ..."),
        (3, "RGB images [N, 3, H, W]", f"--mean 0,0,0 --std {STEP},{STEP},{STEP} ..."),
        (4, "images [N, 4, H, W]", f"--mean 0,0,0,0 --std {STEP},{STEP},{STEP},{STEP} ..."),
    ],
)
def test_the_text_says_how_many_channels_it_reads_and_how_it_is_compressed_again(channels, read, said):
    graph = chain(QuantizedOperator("clamp", "end", ("image",), "end", ClampAttributes(None, 1.0)))
    image = TensorSpec("image", (1, channels, 4, 4), 1 / 255, -128)
    text = to_source(replace(graph, tensors={**graph.tensors, "image": image}), ("a", "b"))
    assert f"It reads {read}, 0 to 255, of 4x4 or any size" in text
    assert said in text


def test_the_forward_is_one_line_an_operator_with_what_is_inside_it():
    add = QuantizedOperator("add", "sum", ("first", "second"), "rectified", Attributes(), activation="relu")
    clamp = QuantizedOperator("clamp", "end", ("rectified",), "end", ClampAttributes(None, 1.0))
    text = to_source(chain(conv("first", "image"), conv("second", "first"), add, clamp), ("a", "b", "c"))
    body = text[text.index("Tensor:\n") : text.index("\n\n\ndef load")].splitlines()[1:]
    assert [line.strip() for line in body] == [
        "x = (pixels - 0.0) / 255",
        "first = self.first(x)",
        "x = self.second(first)",
        "x = torch.relu(first + x)",
        "return x.clamp(None, 1.0)",
    ]
