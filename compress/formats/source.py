"""A float graph as plain torch: the text of a module that people read and train, and its weights.

Names come out of a file that anybody may have made: in the text they are identifiers, never what they were.
"""

import keyword
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np

from compress.graph.operators import OPERATORS
from compress.graph.operators.operator import Attributes, literal
from compress.graph.quantized import QuantizedGraph, QuantizedOperator, TensorSpec

_USED = {"self", "torch", "nn", "F", "pixels", "at", "each", "x", "round", "float"}
"""Names that mean something in `forward`."""
_LONGEST = 60

_TEXT = '''"""A student that compress made, in plain torch, with the weights that it had before they became int8.

It reads {images}, 0 to 255, of {height}x{width} or any size that it fits, and gives one probability for
each of CLASSES, [N, {count}, H, W]. Layers have the names of the original model, with _ for what no name can have.

    from student import load

    student = load()  # trained on as any module is, on -log of the probability of the right class for example
    torch.save(student.state_dict(), "mine.pt")

    compress run mine.pt --arch student.py:Student --size {height}x{width} --mean {mean} --std {std} ...
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = {classes}


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
{layers}

    def forward(self, pixels: Tensor) -> Tensor:
{forward}


def load(weights: Path | None = None) -> Student:
    """By default those in student.safetensors, beside this file."""
    from safetensors.torch import load_file

    student = Student()
    student.load_state_dict(load_file(weights or Path(__file__).with_name("student.safetensors")))
    return student
'''
_AT = """def at(height: int, width: int) -> tuple[int, int]:
    return round(height * pixels.shape[2] / {height}), round(width * pixels.shape[3] / {width})
"""


def to_source(graph: QuantizedGraph, classes: Sequence[str], taken: Collection[str] = ()) -> str:
    """The text of student.py. `taken`: what an attribute of a module cannot be called."""
    _, channels, height, width = graph.tensors[graph.input].shape
    colours = {1: "grey ", 3: "RGB "}.get(channels, "")
    names = _layer_names(graph, taken)
    layers = [f"self.{names[node.name]} = {node.kind.torch(node, ())}" for node in graph.operators if node.kind.weights]
    at = _AT.format(height=height, width=width).split("\n") if _resizes(graph) else ()
    return _TEXT.format(
        height=height,
        width=width,
        count=len(classes),
        images=f"{colours}images [N, {channels}, H, W]",
        mean=",".join(["0"] * channels),
        std=",".join(["0.00392157"] * channels),  # which leaves pixels as they are
        classes=f"({', '.join(map(literal, classes))})",
        layers=_indented(layers),
        forward=_indented([*at, *_forward(graph, names)]),
    )


def to_weights(graph: QuantizedGraph, taken: Collection[str] = ()) -> dict[str, np.ndarray]:
    """What the layers of `to_source` hold, float32 by the names of a state dict."""
    names = _layer_names(graph, taken)
    held: dict[str, Any] = {}
    for node in graph.operators:
        if node.kind.weights:
            held |= {f"{names[node.name]}.weight": node.weight, f"{names[node.name]}.bias": node.bias}
    return held


def _resizes(graph: QuantizedGraph) -> bool:
    """Whether an operator follows the size of the image."""
    return any(node.kind.attributes.at is not Attributes.at for node in graph.operators)


def _indented(lines: Iterable[str]) -> str:
    return "\n".join(f"        {line}".rstrip() for line in lines)


def _layer_names(graph: QuantizedGraph, taken: Collection[str]) -> dict[str, str]:
    """By node with weights."""
    return _identifiers((node.name for node in graph.operators if node.kind.weights), taken)


def _forward(graph: QuantizedGraph, layers: Mapping[str, str]) -> Iterator[str]:
    """One line for each operator, with the rectifier inside it. What only the next line reads is called x."""
    chosen = _identifiers((graph.input, *(node.name for node in graph.operators)), _USED)
    names = {graph.input: chosen[graph.input], **{node.output: chosen[node.name] for node in graph.operators}}
    readers = Counter(name for node in graph.operators for name in node.inputs)
    for name, node in zip((graph.input, *(each.output for each in graph.operators)), graph.operators):
        if readers[name] == node.inputs.count(name) > 0:
            names[name] = "x"
    yield f"{names[graph.input]} = {_real(graph.tensors[graph.input])}"
    for node in graph.operators:
        expression = _expression(node, [names[name] for name in node.inputs], layers)
        yield f"return {expression}" if node.output == graph.output else f"{names[node.output]} = {expression}"


def _real(image: TensorSpec) -> str:
    """What the first operator reads; a whole number of steps to one is said as such."""
    assert image.scale
    steps = round(1 / image.scale)
    scale = f"/ {steps}" if 1 / steps == image.scale else f"* {literal(image.scale)}"
    return f"(pixels - {literal(float(image.zero_point + 128))}) {scale}"


def _expression(node: QuantizedOperator, inputs: Sequence[str], layers: Mapping[str, str]) -> str:
    computed = f"self.{layers[node.name]}({inputs[0]})" if node.kind.weights else node.kind.torch(node, inputs)
    return OPERATORS[node.activation].torch(node, [computed]) if node.activation else computed


def _identifiers(names: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """By name one of its own, as much like it as an identifier can be."""
    found: dict[str, str] = {}
    used = {*taken, *keyword.kwlist}
    for name in names:
        plain = re.sub(r"\W+", "_", name, flags=re.ASCII)[:_LONGEST].strip("_")
        plain = plain if plain[:1].isalpha() else f"layer_{plain}".rstrip("_")
        found[name] = next(each for i in count(1) if (each := f"{plain}_{i}" if i > 1 else plain) not in used)
        used.add(found[name])
    return found
