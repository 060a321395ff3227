"""The quantized graph as a file of its own, for whoever compares the exported files with it."""

import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import ExportError
from compress.files import write_whole
from compress.graph.operators import OPERATORS
from compress.graph.quantized import QuantizedGraph, QuantizedOperator, TensorSpec

_ARRAYS = ("weight", "weight_scale", "bias")
_SCHEMA = 1


def write_graph(graph: QuantizedGraph, path: Path) -> None:
    """An .npz of the arrays, and the rest as JSON. Raises ExportError where it cannot be written."""
    arrays = {
        f"{index}.{kind}": getattr(operator, kind)
        for index, operator in enumerate(graph.operators)
        for kind in _ARRAYS
        if getattr(operator, kind) is not None
    }
    document = {
        "schema": _SCHEMA,
        "name": graph.name,
        "input": graph.input,
        "output": graph.output,
        "tensors": [asdict(spec) for spec in graph.tensors.values()],
        "operators": [
            asdict(replace(operator, weight=None, weight_scale=None, bias=None)) for operator in graph.operators
        ],
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, graph=np.frombuffer(json.dumps(document).encode(), np.uint8), **arrays)
    write_whole(path, buffer.getvalue())


def read_graph(path: Path) -> QuantizedGraph:
    """Raises ExportError for a file that is missing, damaged, or of another version."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        document = json.loads(arrays.pop("graph").tobytes())
        if document["schema"] != _SCHEMA:
            raise ExportError(f"{path}: schema {document['schema']} is not the {_SCHEMA} of this version; run again")
        operators = tuple(_operator(entry, index, arrays) for index, entry in enumerate(document["operators"]))
        specs = [TensorSpec(**{**entry, "shape": tuple(entry["shape"])}) for entry in document["tensors"]]
        tensors = {spec.name: spec for spec in specs}
        graph = QuantizedGraph(document["name"], tensors, operators, document["input"], document["output"])
        _check(graph)
        return graph
    except ExportError:
        raise
    except FileNotFoundError:
        raise ExportError(f"{path}: no such file; `compress run` writes it") from None
    except Exception as error:  # zipfile, zlib, numpy and JSON raise whatever the bytes lead them to
        raise ExportError(f"{path}: is damaged ({type(error).__name__}); run again") from None


def _check(graph: QuantizedGraph) -> None:
    """Raises ValueError or KeyError where a tensor has no shape or range, or an operator reads what is not there."""
    for spec in graph.tensors.values():
        sized = len(spec.shape) == 4 and all(type(size) is int and size > 0 for size in spec.shape)
        ranged = spec.scale is None or (0 < spec.scale < float("inf") and -128 <= spec.zero_point <= 127)
        if not sized or not ranged:
            raise ValueError
    made = {graph.input}
    for operator in graph.operators:
        if not operator.inputs or not made.issuperset(operator.inputs):
            raise ValueError
        made.add(graph.tensors[operator.output].name)
    if graph.output not in made - {graph.input} or graph.tensors[graph.input].scale is None:
        raise ValueError


def _operator(entry: dict[str, Any], index: int, arrays: dict[str, np.ndarray]) -> QuantizedOperator:
    attrs = {key: _tuples(value) for key, value in entry["attrs"].items()}
    own = {kind: arrays.get(f"{index}.{kind}") for kind in _ARRAYS}
    typed = OPERATORS[entry["op"]].attributes(**attrs)
    return QuantizedOperator(**{**entry, "inputs": tuple(entry["inputs"]), "attrs": typed, **own})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
