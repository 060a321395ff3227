"""What a model's file is, told by looking at it and never by running it; and the module in one that has its graph."""

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from compress.errors import ModelError
from compress.flags import MOST_CHANNELS
from compress.load.faithful import first_line
from compress.load.from_onnx import read_onnx
from compress.load.storages import check_storages
from compress.recipe import check_model
from compress.terminal.quiet import quietly

WEIGHTS, SAFETENSORS, TORCHSCRIPT, EXPORTED, ONNX = "weights", "safetensors", "TorchScript", "torch.export", "ONNX"
CARRY_THEIR_GRAPH = (TORCHSCRIPT, EXPORTED, ONNX)

_OTHERS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself; fetch it with: git lfs pull"),
    (b"<", "is a web page or XML, not a model; fetch the file itself"),
    (b"\x89HDF\r\n", "is an HDF5 file, of Keras as it seems; convert it to ONNX with tf2onnx"),
)
_TRUST = "save model.state_dict() instead, or pass --trust-pickle if you trust whoever made it"


def kind_of(path: Path) -> str:
    """WEIGHTS and so on. Raises ModelError for what is no model's file, saying what it is."""
    check_model(path)
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise ModelError(f"{path}: the file is empty; fetch it again")
    for magic, what in _OTHERS:
        if start.startswith(magic):
            raise ModelError(f"{path}: {what}")
    if start[4:8] == b"TFL3":
        raise ModelError(f"{path}: is a TFLite file, which compress writes and does not read; give the torch model")
    if path.suffix in (".pdparams", ".pdiparams", ".pdmodel"):
        raise ModelError(f"{path}: is a Paddle file; convert it to ONNX with paddle2onnx")
    if start.startswith(b"PK"):
        return _kind_of_archive(path)
    if start.startswith(b"\x80"):  # what torch.save wrote before 1.6
        return WEIGHTS
    length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
    if start[8:9] == b"{" and length < path.stat().st_size:
        return SAFETENSORS
    return ONNX if path.suffix == ".onnx" else WEIGHTS


def _kind_of_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            whole = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError, OSError):
        return WEIGHTS  # whose reader says what is wrong with it
    if "model.weights.h5" in whole:
        raise ModelError(f"{path}: is a Keras file; convert it to ONNX with tf2onnx")
    names = [name.partition("/")[2] for name in whole]
    if "archive_format" in names or any(name.startswith("models/") for name in names):
        return EXPORTED
    return TORCHSCRIPT if "constants.pkl" in names and any(name.startswith("code/") for name in names) else WEIGHTS


def module_in(path: Path, kind: str, size: tuple[int, int], trust_pickle: bool) -> nn.Module:
    """The module in a file that carries its graph, for images of `size`. Raises ModelError."""
    readers: dict[str, Callable[[], nn.Module]] = {
        TORCHSCRIPT: lambda: _scripted(path, size),
        EXPORTED: lambda: _exported(path, trust_pickle),
        ONNX: lambda: read_onnx(path),
    }
    try:
        with quietly():
            return readers[kind]()
    except ModelError:
        raise
    except Exception as error:  # whatever a foreign file leads a parser to
        raise ModelError(f"{path}: cannot be read as a {kind} file: {first_line(error)}") from None


def stated_size(module: nn.Module) -> tuple[int, int] | None:
    """Of the images that a module out of `module_in` reads; None where its file leaves that open."""
    shape = getattr(module, "input_shape", ())
    height, width = (*shape[-2:], None, None)[:2]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _scripted(path: Path, size: tuple[int, int]) -> nn.Module:
    """A graph of ATen calls at that size, which decides scripted control flow. Loading runs TorchScript, no Python."""
    from torch.fx.experimental.proxy_tensor import make_fx

    module = scripted(path)
    example = torch.zeros(1, image_channels(module, size), *size)
    with torch.no_grad():
        graph = make_fx(torch.jit.freeze(module), pre_dispatch=True)(example)
    for name, value in list(graph.named_buffers()):
        if value.is_floating_point():  # what was frozen: its weights
            delattr(graph, name)
            graph.register_parameter(name, nn.Parameter(value, requires_grad=False))
    return graph


def scripted(path: Path) -> torch.jit.ScriptModule:
    """The module in a TorchScript file as it is."""
    check_storages(path)
    return torch.jit.load(str(path), map_location="cpu").eval().float()  # type: ignore[no-any-return]


def image_channels(module: nn.Module, size: tuple[int, int]) -> int:
    """Of the images that a module reads: 3 where its first weight says so, or else the first number that it runs on, of
    3, those that its weights tell of, and any other; 3 where it runs on none."""
    shapes = [tuple(weight.shape) for weight in module.parameters() if weight.ndim == 4]
    told = [outputs if inputs == 1 else inputs for outputs, inputs, *_ in shapes]  # one input each: a depthwise layer
    if told[:1] == [3]:
        return 3
    tried = dict.fromkeys((3, 1, *told, *range(1, MOST_CHANNELS + 1)))
    return next((count for count in tried if count <= MOST_CHANNELS and _runs(module, count, size)), 3)


def _runs(module: nn.Module, channels: int, size: tuple[int, int]) -> bool:
    try:
        with torch.no_grad():
            module(torch.zeros(1, channels, *size))
    except Exception:  # the module is anybody's code
        return False
    return True


def _exported(path: Path, trust_pickle: bool) -> nn.Module:
    program = _program(path, trust_pickle)
    module, given = program.module(), program.example_inputs
    module.input_shape = tuple(getattr(given[0][0], "shape", ())) if given and given[0] else ()  # type: ignore[assignment]
    module.eval = lambda: module  # type: ignore[method-assign] # it is as it was exported, and refuses to be told
    module.train = lambda mode=True: module  # type: ignore[method-assign]
    return module


def _program(path: Path, trust_pickle: bool) -> torch.export.ExportedProgram:
    if not trust_pickle:
        _check_no_code(path)
    with path.open("rb") as file:
        return torch.export.load(io.BytesIO(file.read()))


def _check_no_code(path: Path) -> None:
    """Raises ModelError where reading the archive would unpickle what is no tensor, or load native code."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            inside = name.partition("/")[2]
            if inside.startswith("data/aotinductor/") or "custom_obj" in inside or "opaque" in inside:
                raise ModelError(f"{path}: holds code ({inside}), not only a graph and weights; {_TRUST}")
            if inside.endswith("_config.json") and _pickles(json.loads(archive.read(name))):
                raise ModelError(f"{path}: holds pickled weights ({inside}); {_TRUST}")
            if inside.startswith("data/sample_inputs/") and not _only_tensors(archive.read(name)):
                raise ModelError(f"{path}: holds pickled code ({inside}), not only tensors; {_TRUST}")


def _pickles(value: object) -> bool:
    if isinstance(value, dict):
        return value.get("use_pickle") is True or any(map(_pickles, value.values()))
    return isinstance(value, list) and any(map(_pickles, value))


def _only_tensors(data: bytes) -> bool:
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception:
        return False
    return True
