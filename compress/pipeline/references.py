"""What the files of a run are measured beside: heavy files, or what a teacher answers that is none."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from compress.data.folders import Dataset
from compress.data.images import Size, read_mask
from compress.data.maps import maps_of, maps_to_measure
from compress.data.packed import pack_images
from compress.errors import DataError
from compress.files import cached, identity
from compress.formats.artifact import Artifact
from compress.formats.onnx import to_onnx
from compress.load.model import Segmenter
from compress.measure.evaluate import Evaluation, judged
from compress.pipeline.prepare import Teaching
from compress.quantize.convert import float_graph
from compress.runtime.local import describe_in_child
from compress.terminal.progress import tqdm
from compress.train.members import Member
from compress.train.teacher import at_size

log = logging.getLogger("compress")

TEACHER, SOURCE = "teacher", "source"
_FLOAT_FILE = 1  # raised whenever the same network gives another fp32 file


@dataclass(frozen=True)
class References:
    """`files`: heavy ones, the one that is called TEACHER first. `told`: what the teacher answers on the images to
    measure on, where it is no file. `warnings`: what cannot be told, a line each."""

    files: dict[str, Artifact]
    told: dict[str, Evaluation] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def references(
    source: Teaching, teachers: Sequence[Teaching], dataset: Dataset, size: Size, name: str, cache: Path
) -> References:
    """The first teacher that is a file, or can be written as one, else the model as it came; and that besides where it
    is another and can be. Where neither is, what the first teacher answers that can be asked, at `size`. Raises
    DataError where IoU is agreement with a teacher that cannot be asked."""
    all_of_them = [*teachers, source]
    first = next((file for one in all_of_them if (file := _file_of(one, name, cache))), None)
    if first is not None:
        files = {TEACHER: first}
        own = None if source.identity in {one.identity for one in teachers} else _file_of(source, name, cache)
        if own is not None and own.sha256 != first.sha256:
            files[SOURCE] = own
        log.info("heavy model: %s, %s; a gate can compare with a copy of it", first.path, first.format)
        return References(files)
    for one in all_of_them:
        if (answers := _answers(one, dataset, size, cache)) is not None:
            timeless = f"{one.path.name} is no file that a runtime opens: it has no latency to be faster than"
            return References({}, {TEACHER: _evaluation(answers, dataset)}, (timeless,))
    if dataset.reference == "teacher":
        raise DataError(f"{source.path}: no labels to measure on, and no maps of all images that are kept for that")
    unknown = (
        f"{source.path.name} tells nothing of val: the files are measured beside nothing, without speed-up and drop"
    )
    return References({}, {}, (unknown,))


def _file_of(one: Teaching, name: str, cache: Path) -> Artifact | None:
    if not isinstance(one, Member):
        return None
    return one.file or (float_file(one.traced, name, cache) if one.traced else None)


def float_file(teacher: Segmenter, name: str, cache: Path) -> Artifact:
    """A model as fp32 ONNX, in the cache."""
    graph = float_graph(teacher.network, name)
    key = identity("fp32 onnx", _FLOAT_FILE, model=teacher.identity, name=name)
    path = cached(cache / f"teacher-{key}.onnx", lambda partial: to_onnx(graph, partial))
    image = teacher.network.input.attrs
    mean, std = (float(image.zero_point),) * image.channels, (1 / image.scale,) * image.channels
    return describe_in_child(path, graph.activation).reading(mean, std)


def _answers(one: Teaching, dataset: Dataset, size: Size, cache: Path) -> Iterable[np.ndarray] | None:
    """Probabilities of each image to measure on, float32 [classes, h, w], all of one size; None: not of all."""
    if isinstance(one, Member):
        return _asked(one, dataset, cache)
    maps = maps_to_measure(one, maps_of(one, dataset), dataset)
    if maps is None:
        return None
    return (at_size(torch.from_numpy(maps.probabilities(file))[None], size)[0].numpy() for file in maps.files)


def _asked(one: Member, dataset: Dataset, cache: Path) -> Iterator[np.ndarray]:
    images = pack_images([sample.image for sample in dataset.val], one.size, cache, dataset.reading).array
    with one.looking(()) as look:
        for image in tqdm(images, desc=f"IoU of {one.path.name}", unit="image", delay=1):
            yield look(torch.from_numpy(image[None].copy()))[0].numpy()


def _evaluation(answers: Iterable[np.ndarray], dataset: Dataset) -> Evaluation:
    masks = [read_mask(sample.mask, dataset.coding) if sample.mask else None for sample in dataset.val]
    return judged(answers, masks, len(dataset.classes), multilabel=dataset.multilabel)
