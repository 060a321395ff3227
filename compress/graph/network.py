"""The traced network: a short list of operators that every stage reads, trains and rewrites.

A foreign model becomes a `Network` once, at the door (`compress.load`); pruning, repair, training
and quantization then walk the same few operators instead of modules of any shape, and ask each of them
(`compress.graph.operators`) what they need to know.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.graph.operators import OPERATORS
from compress.graph.operators.operator import Attributes, Bounds, Operator, Weights


@dataclass(frozen=True)
class Node:
    """One operator in its place: `op` is a name in `compress.graph.operators`, `attrs` are its attributes there.

    The name is the layer's path in the original module where it has one.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    attrs: Any = field(default_factory=Attributes)

    def __post_init__(self) -> None:
        """Raises ModelError, naming the layer, for an operator that is not known here: no stage passes it over."""
        if self.op not in OPERATORS:
            raise ModelError(f"{self.name}: there is no operator {self.op!r}; a network has {', '.join(OPERATORS)}")
        if type(self.attrs) is not self.kind.attributes:
            raise ModelError(f"{self.name}: {self.op} has {self.kind.attributes.__name__}, not {self.attrs!r}")

    @property
    def kind(self) -> Operator:
        return OPERATORS[self.op]

    @property
    def weights(self) -> Weights:
        """How its weight is laid out; only of a node that has one."""
        assert self.kind.weights, f"{self.name}: {self.op} has no weights"
        return self.kind.weights

    def out_channels(self, weight: Tensor) -> int:
        return self.weights.out_channels(weight.shape, self.attrs.groups)

    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Its weight with each output channel multiplied by its part of `scale`, [outputs]."""
        return self.weights.scaled(weight, self.attrs.groups, scale)


Visitor = Callable[[Node, Tensor], Tensor]


class Network(nn.Module):
    """Operators in execution order from one input (real values, [N, channels, H, W] float32) to one output
    ([N, classes, H, W] probabilities). Batch normalisation is folded: a convolution has a weight and a bias.

    H and W may differ from the traced size; resize operators follow in proportion.
    """

    def __init__(self, nodes: Sequence[Node], weights: Mapping[str, tuple[Tensor, Tensor]], output: str):
        super().__init__()
        self.output = output
        self.nodes = needed(nodes, output)
        self.by_name = {node.name: node for node in self.nodes}
        self.readers = Counter(name for node in self.nodes for name in node.inputs)
        self.parameters_by_key = nn.ParameterDict()
        for node in self.weighted():
            weight, bias = weights[node.name]
            self.parameters_by_key[_key(node.name, "weight")] = nn.Parameter(weight.detach().clone())
            self.parameters_by_key[_key(node.name, "bias")] = nn.Parameter(bias.detach().clone())

    @property
    def input(self) -> Node:
        return self.nodes[0]

    def weighted(self) -> list[Node]:
        """The nodes that have weights."""
        return [node for node in self.nodes if node.kind.weights]

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def weight(self, name: str) -> Tensor:
        """[O, I/groups, kh, kw]; for conv_transpose [I, O/groups, kh, kw]."""
        return self.parameters_by_key[_key(name, "weight")]

    def bias(self, name: str) -> Tensor:
        return self.parameters_by_key[_key(name, "bias")]

    def weights(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {node.name: (self.weight(node.name), self.bias(node.name)) for node in self.weighted()}

    def compute(self, node: Node, inputs: list[Tensor], input_size: tuple[int, int]) -> Tensor:
        """One operator. `input_size` is the height and width of the image that the network was given."""
        weights = (self.weight(node.name), self.bias(node.name)) if node.kind.weights else ()
        return node.kind.compute(inputs, node.attrs.at(input_size, self.traced_size), *weights)

    def encode(self, name: str, real: Tensor) -> Tensor:
        """A tensor's real values as `compute` takes and gives them; here the same."""
        return real

    def decode(self, name: str, value: Tensor) -> Tensor:
        """The inverse of `encode`."""
        return value

    @property
    def traced_size(self) -> tuple[int, int]:
        return self.input.attrs.size

    @property
    def image_channels(self) -> int:
        return self.input.attrs.channels

    def run(self, image: Tensor, keep: Collection[str] = (), visit: Visitor | None = None) -> dict[str, Tensor]:
        """Real image values [N, channels, H, W] -> the tensors named in `keep` and the output, by name. `visit` sees
        the result of each operator and gives what its readers are to see."""
        waiting = dict(self.readers)
        values = {self.input.name: self.encode(self.input.name, image)}
        kept = {}
        for node in self.nodes:
            if node.op != "input":
                size = (image.shape[2], image.shape[3])
                values[node.name] = self.compute(node, [values[name] for name in node.inputs], size)
                if visit:
                    given = visit(node, self.decode(node.name, values[node.name]))
                    values[node.name] = self.encode(node.name, given)
            if node.name in keep or node.name == self.output:
                kept[node.name] = self.decode(node.name, values[node.name])
            for name in node.inputs:
                waiting[name] -= 1
                if not waiting[name]:
                    values.pop(name, None)
        return kept

    def forward(self, image: Tensor) -> Tensor:
        return self.run(image)[self.output]

    def real(self, pixels: Tensor, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
        """uint8 pixels [N, H, W, channels] -> the real values [N, channels, H, W] float32 that it reads, in memory as
        `layout` says: `torch.channels_last` is what is fastest for a network that was `placed`, and costs no copy."""
        scale, zero_point = self.input.attrs.scale, self.input.attrs.zero_point
        return ((pixels.float() - zero_point) * scale).permute(0, 3, 1, 2).contiguous(memory_format=layout)

    def shapes(self, size: tuple[int, int] | None = None) -> dict[str, tuple[int, int, int, int]]:
        """Shape of every tensor for one image of `size` (default: the traced size)."""
        height, width = size or self.traced_size
        with torch.no_grad():
            image = torch.zeros(1, self.image_channels, height, width, device=self.device)
            values = self.run(image, keep=self.by_name)
        return {name: _four(value.shape) for name, value in values.items()}

    def resized(self, size: tuple[int, int]) -> "Network":
        """The same for images of another size, as if it had been traced at that."""
        nodes = [replace(node, attrs=node.attrs.at(size, self.traced_size)) for node in self.nodes[1:]]
        image = replace(self.input, attrs=replace(self.input.attrs, size=size))
        return self.rewritten(self.weights(), [image, *nodes])

    def takes(self, size: tuple[int, int]) -> bool:
        """Whether its operators fit together on an image of this size, and give a map as large."""
        try:
            return self.shapes(size)[self.output][2:] == tuple(size)
        except RuntimeError:  # torch's, of shapes that do not match
            return False

    def bounds(self) -> dict[str, Bounds]:
        """Of every tensor, as far as the operators tell."""
        found: dict[str, Bounds] = {}
        for node in self.nodes:
            found[node.name] = node.kind.bounds([found[name] for name in node.inputs], node.attrs)
        return found

    def rewritten(
        self,
        weights: Mapping[str, tuple[Tensor, Tensor]],
        nodes: Sequence[Node] | None = None,
        output: str | None = None,
    ) -> "Network":
        """A copy with other weights, and other operators where given."""
        return Network(nodes or self.nodes, weights, output or self.output)

    def to_state(self) -> dict[str, Any]:
        """Plain values that `torch.load(..., weights_only=True)` reads back; see `from_state`."""
        nodes = [(node.name, node.op, list(node.inputs), asdict(node.attrs)) for node in self.nodes]
        return {"nodes": nodes, "output": self.output, "weights": {k: v.detach() for k, v in self.state_dict().items()}}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Network":
        nodes = [Node(name, op, tuple(i), OPERATORS[op].attributes(**a)) for name, op, i, a in state["nodes"]]
        loaded = {
            node.name: tuple(
                state["weights"][f"parameters_by_key.{_key(node.name, kind)}"] for kind in ("weight", "bias")
            )
            for node in nodes
            if node.kind.weights
        }
        return cls(nodes, loaded, state["output"])


def is_depthwise(node: Node, weight: Tensor) -> bool:
    """One filter for each channel, were there but one: output channel c reads input channel c alone."""
    return bool(node.kind.weights) and node.attrs.groups == weight.shape[0] and weight.shape[1] == 1


def _four(shape: torch.Size) -> tuple[int, int, int, int]:
    batch, channels, height, width = shape
    return batch, channels, height, width


def _key(name: str, kind: str) -> str:
    return f"{name.replace('.', '/')}:{kind}"


def needed(nodes: Sequence[Node], output: str) -> tuple[Node, ...]:
    """The operators that the output depends on, in their order."""
    wanted = {output}
    kept = []
    for node in reversed(nodes):
        if node.name in wanted or node.op == "input":
            wanted.update(node.inputs)
            kept.append(node)
    return tuple(reversed(kept))
