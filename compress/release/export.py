"""The formats that a graph can be written in."""

from functools import partial
from pathlib import Path
from typing import Any

from compress.formats.artifact import Artifact
from compress.formats.metadata import Card
from compress.formats.onnx import to_onnx
from compress.formats.ort import to_ort
from compress.formats.tflite import to_tflite
from compress.graph.quantized import QuantizedGraph
from compress.recipe import Recipe
from compress.runtime.session import describe

EXPORTERS = {"onnx": to_onnx, "ort": to_ort, "tflite": to_tflite}


def exported(graph: QuantizedGraph, recipe: Recipe, folder: Path) -> list[Artifact]:
    """model.onnx and so on in `folder`, in each of the recipe's formats; ONNX files read what `onnx_input` says.
    Raises ExportError."""
    card = Card(
        recipe.name, recipe.version, recipe.description, recipe.author, recipe.licence, tuple(recipe.model.classes)
    )
    reads = recipe.preprocess.of_pixels() if recipe.onnx_input == "float32" else None
    writers: dict[str, Any] = {**EXPORTERS, "onnx": partial(to_onnx, reads=reads), "ort": partial(to_ort, reads=reads)}
    artifacts = []
    for name in recipe.formats:
        path = folder / f"model.{name}"
        writers[name](graph, path, card=card)
        artifacts.append(describe(path, activation=graph.operators[-1].op))
    return artifacts
