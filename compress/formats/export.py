"""The formats that a graph can be written in."""

from pathlib import Path

from compress.formats.artifact import Artifact
from compress.formats.metadata import Card
from compress.formats.onnx import to_onnx
from compress.formats.ort import to_ort
from compress.formats.runtime import describe
from compress.formats.tflite import to_tflite
from compress.quantize.graph import QuantizedGraph
from compress.recipe import Recipe

EXPORTERS = {"onnx": to_onnx, "ort": to_ort, "tflite": to_tflite}


def exported(graph: QuantizedGraph, recipe: Recipe, folder: Path) -> list[Artifact]:
    """model.onnx and so on in `folder`, in each of the recipe's formats. Raises ExportError."""
    card = Card(
        recipe.name, recipe.version, recipe.description, recipe.author, recipe.licence, tuple(recipe.model.classes)
    )
    artifacts = []
    for name in recipe.formats:
        path = folder / f"model.{name}"
        EXPORTERS[name](graph, path, card=card)
        artifacts.append(describe(path, activation=graph.operators[-1].op))
    return artifacts
