"""The model of a run: what is cut, or where another network is trained, what teaches."""

from pathlib import Path

from compress.data.images import Reading
from compress.data.maps import MapFolder, open_maps
from compress.errors import ModelError
from compress.files import sha256_of
from compress.load.faithful import Original
from compress.load.model import Trained, load_with_original
from compress.pipeline.prepare import Teaching
from compress.recipe import Recipe
from compress.report.record import Source
from compress.runtime.session import OPENERS
from compress.train.members import Member, file_member, in_classes, run_as_it_is, traced_member


def open_source(path: Path, recipe: Recipe, trust_pickle: bool = False) -> tuple[Teaching, Original | None]:
    """The model, and the module that it was traced from, where it was. What only teaches needs not be traceable. Raises
    a CompressError."""
    if recipe.student.network is None:
        return _traced(path, recipe, trust_pickle)
    classes = recipe.model.classes
    if path.is_dir():
        return open_maps(path, classes, bool(recipe.model.multilabel), recipe.teacher.classes), None
    if path.suffix in OPENERS and path.suffix != ".onnx":
        return _checked(file_member(path, recipe), recipe), None
    try:
        return _traced(path, recipe, trust_pickle)
    except ModelError as refused:
        return _checked(run_as_it_is(path, recipe, refused, trust_pickle), recipe), None


def _traced(path: Path, recipe: Recipe, trust_pickle: bool) -> tuple[Teaching, Original]:
    known, original = load_with_original(path, recipe, trust_pickle)
    return traced_member(known, path, Reading.of(recipe)), original


def _checked(one: Member, recipe: Recipe) -> Member:
    """Raises ModelError where it reads other channels than the recipe says."""
    if one.reading.channels != recipe.model.channels:
        raise ModelError(
            f"{one.path}: reads {one.reading.channels} channels, and its recipe says {recipe.model.channels}; set "
            "channels under [model]"
        )
    return in_classes(one, recipe.model.classes, {})


def source_of(source: Teaching) -> Source:
    """As the record of a run has it."""
    name = source.path.name
    if isinstance(source, MapFolder):
        return Source(name, source.identity, source.size_bytes)
    if isinstance(source.traced, Trained):
        return Source(name, source.traced.sha256, source.traced.size_bytes, source.traced.parameters)
    return Source(name, sha256_of(source.path), source.path.stat().st_size)
