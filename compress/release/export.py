"""The formats that a graph can be written in."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from compress.data.images import Reading
from compress.formats.artifact import Artifact
from compress.formats.metadata import Card
from compress.formats.onnx import to_onnx
from compress.formats.ort import to_ort
from compress.formats.tflite import to_tflite
from compress.graph.quantized import QuantizedGraph
from compress.recipe import Colours, Recipe
from compress.runtime.local import describe_in_child

EXPORTERS = {"onnx": to_onnx, "ort": to_ort, "tflite": to_tflite}


@dataclass(frozen=True)
class FileSettings:
    """Which files to write. `card` is what they say of themselves; `reads`: mean and std, of 0..255 pixels, of what an
    ONNX or ORT file with a float32 input reads, None where it reads the pixels."""

    card: Card
    formats: tuple[str, ...]
    reads: tuple[Colours, Colours] | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> "FileSettings":
        card = Card(
            recipe.name,
            recipe.version,
            recipe.description,
            recipe.author,
            recipe.licence,
            tuple(recipe.model.classes),
            Reading.of(recipe).words,
        )
        reads = recipe.preprocess.of_pixels() if recipe.onnx_input == "float32" else None
        return cls(card, tuple(recipe.formats), reads)

    def telling(self, multilabel: bool) -> "FileSettings":
        """With files that say whether a pixel can have several labels."""
        return replace(self, card=replace(self.card, multilabel=multilabel))

    def timed(self) -> "FileSettings":
        """With the one format that a latency is of: as apps on phones run it."""
        return replace(self, formats=("tflite",) if "tflite" in self.formats else self.formats[:1])


def write_files(graph: QuantizedGraph, settings: FileSettings, folder: Path) -> list[Path]:
    """Writes model.onnx and so on to `folder`, in each of the formats. Raises ExportError."""
    reads = settings.reads
    writers: dict[str, Any] = {**EXPORTERS, "onnx": partial(to_onnx, reads=reads), "ort": partial(to_ort, reads=reads)}
    paths = [folder / f"model.{name}" for name in settings.formats]
    for name, path in zip(settings.formats, paths, strict=True):
        writers[name](graph, path, card=settings.card)
    return paths


def export(graph: QuantizedGraph, settings: FileSettings, folder: Path) -> list[Artifact]:
    """`write_files`, and what each file then says of itself. Raises ExportError, and MeasureError."""
    return [describe_in_child(path, graph.activation) for path in write_files(graph, settings, folder)]
