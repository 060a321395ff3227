"""Whether a traced network is the module: both on the same pictures, and the layer where they part."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.errors import ModelError
from compress.graph.network import Network, Node
from compress.load.exported import paths_of, stored_in
from compress.load.outputs import Deployed, named

TOLERANCE = 1e-3
"""Of the largest value: what float32 rounds differently, in networks of some hundred layers, is far below."""

NOT_FINITE = (
    "gives infinite values or NaN for an ordinary picture; look at the weights of this layer, and at [preprocess] "
    "in the recipe"
)

EXACT = 1e-4
"""The same in float64, where it is the weights alone that were rounded."""


@dataclass(frozen=True, eq=False)
class Original:
    """What a network was traced from.

    network   not yet with a class map: real image values [N, channels, H, W] -> the map that is deployed
    outputs   shapes of all tensors that the module gives, by name
    deployed  which output of the module that is, or is decided from it
    layers    by node of the exported program, the operator of `network` that gives the same values
    """

    module: nn.Module
    exported: torch.export.ExportedProgram
    network: Network
    outputs: Mapping[str, tuple[int, ...]]
    deployed: Deployed
    layers: Mapping[torch.fx.Node, str]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def check(self, pictures: Tensor) -> None:
        """Raises ModelError, naming the first layer that parts, where the network does not give what the module gives
        for real image values [N, channels, H, W], and where that is not finite."""
        with torch.no_grad():
            for picture in pictures.split(1):
                wanted = self._wanted(picture)
                if not _finite(wanted) or _apart(self.network(picture), wanted) > TOLERANCE:
                    self._check_layers(picture, wanted)

    def _wanted(self, picture: Tensor) -> Tensor:
        try:
            if self.deployed.decision:
                return self._run(picture)[self.network.output]
            return named(self.module(self._normalised(picture)))[self.deployed.name].float()  # type: ignore[no-any-return]
        except Exception as error:  # the module is the user's own code
            raise ModelError(f"the model can be traced, but not run: {first_line(error)}") from error

    def _normalised(self, picture: Tensor) -> Tensor:
        mean, std = (torch.tensor(values, dtype=picture.dtype).reshape(1, -1, 1, 1) for values in (self.mean, self.std))
        return (picture - mean) / std

    def _check_layers(self, picture: Tensor, wanted: Tensor) -> None:
        """In float64, where rounding is no reason to part."""
        values = self._run(picture)
        for name, value in values.items():
            if not _finite(value):
                raise ModelError(f"{name}: {NOT_FINITE}")
        if not _finite(wanted):
            raise ModelError(f"{self.network.output}: {NOT_FINITE}")
        parting: list[tuple[str, float]] = []

        def compare(node: Node, value: Tensor) -> Tensor:
            if node.name in values and (apart := _apart(value, values[node.name])) > EXACT:
                parting.append((node.name, apart))
            return value

        copy.deepcopy(self.network).double().run(picture.double(), visit=compare)
        if parting:
            name, apart = parting[0]
            raise ModelError(
                f"{name}: what is traced of this layer computes something else than the module does, by up to "
                f"{apart:.2g} of its largest value; write it with other operators"
            )
        if _apart(values[self.network.output].float(), wanted) > TOLERANCE:
            raise ModelError(
                "the model does not compute what torch.export traces of it; its forward() must do the same for every "
                "image, and draw no random numbers"
            )

    def _run(self, picture: Tensor) -> dict[str, Tensor]:
        """What the exported program computes in float64, by layer of the network, in the order in which it does."""
        program, layers = self.exported, self.layers
        paths, stored = paths_of(program), stored_in(program)
        given = self._normalised(picture.double())
        placeholders = [node.name for node in program.graph.nodes if node.op == "placeholder"]
        inputs = [_double(stored[paths[name]]) if name in paths else given for name in placeholders]
        values: dict[str, Tensor] = {}

        class Kept(torch.fx.Interpreter):
            def run_node(self, n: torch.fx.Node) -> Any:
                if n.target is torch.ops.aten._assert_tensor_metadata.default:  # that all is float32
                    return None
                result = super().run_node(n)
                if isinstance(result, Tensor) and result.dtype == torch.float32:  # as the module asked for
                    result = result.double()
                if n in layers:
                    values[layers[n]] = result.clone()  # a later operator may change it in place
                return result

        Kept(program.graph_module).run(*inputs)
        return values


def _finite(value: Tensor) -> bool:
    """Also in float32."""
    return bool(value.float().isfinite().all())


def _double(value: Tensor) -> Tensor:
    return value.detach().double() if value.is_floating_point() else value.detach().clone()


def _apart(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a share of the largest value; infinite where it is not a number."""
    if found.shape != wanted.shape:
        return float("inf")
    share = float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))
    return share if share == share else float("inf")


def made_up_pictures(size: tuple[int, int], channels: int = 3) -> Tensor:
    """Real values [1, channels, H, W]: a dark scene of soft shades and sharp edges, a quarter of it noise."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    shades = F.interpolate(torch.rand(1, channels, 4, 4, generator=generator), size, mode="bilinear")
    noise = torch.rand(1, channels, *size, generator=generator)
    scene = 0.6 * shades + 0.05 * noise
    edges = torch.tensor([0.9, 0.2, 0.1]).repeat(-(-channels // 3))[:channels]
    scene[:, :, height // 4 : height // 2, width // 3 :] = edges.reshape(-1, 1, 1)
    scene[:, :, height // 2 :, width // 2 :] = noise[:, :, height // 2 :, width // 2 :]
    return scene


def first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
