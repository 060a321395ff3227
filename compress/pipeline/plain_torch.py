"""The student as its user's own: a module of plain torch, its weights, and its exported program."""

import copy
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import ExportError
from compress.files import write_whole
from compress.formats.source import to_source, to_weights
from compress.graph.network import Network
from compress.load.faithful import made_up_pictures
from compress.quantize.convert import float_graph
from compress.terminal.quiet import quietly

FOLDER = "student"
CLOSE = 1e-5
TAKEN = frozenset(dir(nn.Module()))
"""What no layer of a module can be called."""


def write_student(net: Network, name: str, classes: Sequence[str], out: Path) -> None:
    """Writes student.py, student.safetensors and student.pt2 into `out`/student. Raises WriteError, and ExportError
    where they do not compute what `net` does."""
    from safetensors.torch import save

    graph = float_graph(net, name)
    source = to_source(graph, classes, TAKEN)
    weights = {name: torch.from_numpy(values).contiguous() for name, values in to_weights(graph, TAKEN).items()}
    student = _loaded(source, weights)
    _check(student, net)
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "student.py", source.encode())
    write_whole(folder / "student.safetensors", save(weights))
    write_whole(folder / "student.pt2", _program(student, (net.image_channels, *net.traced_size)))


def _loaded(source: str, weights: dict[str, Tensor]) -> nn.Module:
    written: dict[str, Any] = {"__name__": "student"}
    exec(compile(source, "student.py", "exec"), written)
    student: nn.Module = written["Student"]()
    student.load_state_dict(weights)
    return student.eval()


def _check(student: nn.Module, net: Network) -> None:
    """In float64, where rounding is no reason to part."""
    pixels = (255 * made_up_pictures(net.traced_size, net.image_channels)).round().byte().permute(0, 2, 3, 1)
    with torch.no_grad():
        wanted = copy.deepcopy(net).cpu().double()(net.real(pixels).double())
        found = copy.deepcopy(student).double()(pixels.permute(0, 3, 1, 2).double())
    apart = float((found - wanted).abs().max())
    if not apart <= CLOSE:
        raise ExportError(f"{FOLDER}/student.py gives something else than the student, by up to {apart:.2g}")


def _program(student: nn.Module, shape: tuple[int, int, int]) -> bytes:
    """For any number of images of one size."""
    buffer = io.BytesIO()
    with quietly():
        program = torch.export.export(
            student, (torch.zeros(2, *shape),), dynamic_shapes=({0: torch.export.Dim.AUTO},), strict=False
        )
        torch.export.save(program, buffer)
    return buffer.getvalue()
