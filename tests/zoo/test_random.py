"""Random small networks: the cut network is the masked one, and both files compute the integers of the reference."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from integer_reference import compute
from masked import every_other, masked
from random_networks import CLASSES, Drawn, Plan, plans

from compress.formats.onnx import to_onnx
from compress.formats.tflite import to_tflite
from compress.graph.channels import find_groups
from compress.graph.network import Network
from compress.graph.quantized import QuantizedGraph
from compress.load.trace import fold_normalisation, trace
from compress.prune.cut import check_cut, cut
from compress.prune.importance import measure_damage
from compress.quantize.calibration import calibrate
from compress.quantize.convert import quantized_graph
from compress.quantize.training import QuantizedNetwork
from compress.runtime.session import Session, open_model

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
EXPORTERS = {"onnx": to_onnx, "tflite": to_tflite}
ALIKE = {"derandomize": True, "database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}


def goes_the_whole_way(plan: Plan, folder: Path) -> None:
    net = fold_normalisation(trace(Drawn(plan), plan.size, 0, CLASSES, MEAN, STD)[0])
    generator = torch.Generator().manual_seed(plan.seed)
    picture = torch.randint(0, 256, (1, *plan.size, 3), dtype=torch.uint8, generator=generator)
    small = halved(net, net.real(picture))
    twin = QuantizedNetwork(small, calibrate(small, [small.real(picture)], 100.0)).eval()
    graph = quantized_graph(twin, "drawn")
    for kind, write in EXPORTERS.items():
        path = folder / f"model.{kind}"
        write(graph, path, expose=[each.output for each in graph.operators if each.output != graph.output])
        check_layers(graph, open_model(path, threads=1), picture[0].numpy())


def halved(net: Network, image: torch.Tensor) -> Network:
    channels = find_groups(net)
    kept = {group.name: every_other(group) for group in channels.groups.values()}
    small = cut(net, channels, kept)
    check_cut(net, small, channels, kept, image)
    wanted = masked(net, channels, kept, image)
    with torch.no_grad():
        torch.testing.assert_close(small(image), wanted, atol=1e-4, rtol=0)
    damage = measure_damage(net, channels, [image])
    assert all(np.isfinite(each.damage).all() for each in damage.values())
    assert find_groups(small).segments.keys() == channels.segments.keys()
    return small


def check_layers(graph: QuantizedGraph, session: Session, picture: np.ndarray) -> None:
    """Each layer on the integers that the file itself gives it."""
    values = {graph.input: picture.transpose(2, 0, 1)[None].astype(np.int64) - 128}
    for name, value in session.run_all(session.prepare(picture)).items():
        value = value.astype(np.int64) - 128 if value.dtype == np.uint8 else value.astype(np.int64)
        order = (0, 1, 2, 3) if session.input.layout == "NCHW" else (0, 3, 1, 2)
        values[name if name in graph.tensors else graph.output] = value.transpose(order)
    for operator in graph.operators:
        apart = np.abs(compute(operator, graph, values) - values[operator.output])
        assert np.mean(apart > 1) < 0.002, f"{operator.name}, a {operator.op} of {session.runtime}"
        assert apart.max() <= 2, f"{operator.name}, a {operator.op} of {session.runtime}: {apart.max()} off"


@settings(max_examples=15, **ALIKE)
@given(plan=plans())
def test_a_few_random_networks_go_the_whole_way(plan, tmp_path_factory):
    goes_the_whole_way(plan, tmp_path_factory.mktemp("drawn"))


@pytest.mark.slow
@settings(max_examples=300, **ALIKE)
@given(plan=plans())
def test_random_networks_go_the_whole_way(plan, tmp_path_factory):
    goes_the_whole_way(plan, tmp_path_factory.mktemp("drawn"))
