"""What an exported file says, read back with the format's own parser and compared with the graph.

What a file should say is worked out anew from the graph and from how its operators are written in each format
(`Operator.onnx`, `Operator.tflite`); of the writers nothing but constants and tables is used, so a fault of theirs is
found as a changed file is. Whether those forms mean what the operators mean, running them layer by layer tells.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from compress.errors import ExportError
from compress.formats.onnx_steps import onnx_steps, read_onnx
from compress.formats.steps import Listing, unlike
from compress.formats.tflite_steps import read_tflite, tflite_steps
from compress.graph.quantized import QuantizedGraph

_Read = TypeVar("_Read")
READABLE = (".onnx", ".tflite")
"""What can be read back: of an .ort file only what it computes can be compared."""


def differences(graph: QuantizedGraph, path: Path) -> list[str]:
    """What the file, of a kind that is `READABLE`, says otherwise than the graph, one line each: operators, their
    order, attributes and connections, and every integer, scale and zero point.

    Raises ExportError, in one line, for a file that is no such model.
    """
    wanted, found = _onnx(graph, path) if path.suffix == ".onnx" else _tflite(graph, path)
    return [f"{path.name}: {line}" for line in unlike(wanted, found)]


def _onnx(graph: QuantizedGraph, path: Path) -> tuple[Listing, Listing]:
    found, reads = _parsed(path, read_onnx)
    return onnx_steps(graph, reads), found


def _tflite(graph: QuantizedGraph, path: Path) -> tuple[Listing, Listing]:
    return tflite_steps(graph), _parsed(path, read_tflite)


def _parsed(path: Path, read: Callable[[bytes], _Read]) -> _Read:
    try:
        return read(path.read_bytes())
    except Exception as error:  # a parser raises whatever the bytes lead it to
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ExportError(f"{path}: cannot be read back: {reason}; export it again") from error
