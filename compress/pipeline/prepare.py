"""Folders of images and the teachers -> what the student learns from and is measured on."""

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from compress.data.coding import Coding
from compress.data.folders import Dataset, mask_layout, open_dataset, open_unlabelled
from compress.data.images import RGB, Reading, Size, read_image
from compress.data.maps import MapFolder, maps_of, open_maps
from compress.data.packed import Packed, pack_images, pack_masks
from compress.errors import DataError, ModelError, RecipeError
from compress.files import cache_folder, identity
from compress.graph.network import Network
from compress.load.model import Segmenter
from compress.prune.branches import without
from compress.prune.widths import PrunePlan
from compress.recipe import DataSection, Recipe, TeacherSection
from compress.settings import ClassWeights
from compress.train import processes
from compress.train.examples import Examples, balanced, hopeless, references_of
from compress.train.members import FLIP, SCALE, Member, in_classes, member, traced_member
from compress.train.teacher import (
    LiveTeacher,
    StoredTeacher,
    Teacher,
    feature_tensors,
    joined_maps,
    maps_in_folder,
    teacher_features,
    teacher_maps,
)
from compress.train.views import random_view, shrink

log = logging.getLogger("compress")

Teaching = Member | MapFolder
"""One that teaches."""
HELD_OUT = 48
DEVIATION = 32
"""Images that the standard deviation of a live teacher's features is taken from."""


@dataclass(frozen=True)
class Prepared:
    """What a run learns from and is measured on.

    packed    the images to learn from
    stored    what the teachers say of each of them
    teacher   that, or the teachers themselves
    images    those to measure on, uint8 [N, H, W, channels]
    identity  of the content of everything read
    """

    packed: Packed
    examples: Examples
    stored: StoredTeacher
    teacher: Teacher
    images: np.ndarray
    identity: str


def as_masks_tell(recipe: Recipe) -> Recipe:
    """The recipe, which says whether a pixel can have several labels where the masks that it names show it."""
    if recipe.data.folder is None or recipe.model.multilabel is not None:
        return recipe
    multilabel, _ = mask_layout(recipe.data.folder)
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"multilabel": multilabel})})


def open_data(
    data: DataSection, classes: Sequence[str], seed: int, reading: Reading = RGB, *, multilabel: bool = False
) -> Dataset:
    """Raises DataError."""
    if data.folder:
        coding = Coding.of(data, classes)
        return open_dataset(data.folder, classes, data.unlabelled, coding, reading, multilabel)
    if data.unlabelled:
        return open_unlabelled(data.unlabelled, classes, seed, reading, multilabel)
    raise DataError("no images: give --data DIR with train/ and val/, or --unlabelled DIR with photographs")


def load_teachers(
    teacher: TeacherSection, model: Teaching, trust_pickle: bool = False, reading: Reading = RGB
) -> list[Teaching]:
    """The model itself, or the recipe's teachers, each of the model's classes. Raises ModelError where one has others,
    or reads images otherwise, and what opening it raises."""
    found = [_teacher(path, teacher, model, trust_pickle, reading) for path in teacher.models] or [model]
    if SCALE in teacher.tta and (whole := [one for one in found if not one_traced(one)]):
        raise RecipeError(f"{whole[0].path}: --tta scale needs a network that can be traced; leave scale out")
    if FLIP in teacher.tta and (folders := [one for one in found if isinstance(one, MapFolder)]):
        raise RecipeError(f"{folders[0].path}: a folder of maps answers no other views; leave --tta out")
    return found


def _teacher(path: Path, section: TeacherSection, model: Teaching, trust_pickle: bool, reading: Reading) -> Teaching:
    assert model.names
    if path.is_dir():
        return open_maps(path, model.names, model.multilabel, section.classes)
    one = member(path, trust_pickle, model.multilabel)
    if one.multilabel != model.multilabel:
        raise ModelError(f"{path}: one of it and the model tells several labels at once; set multilabel in both")
    own = replace(one.reading, range=reading.range) if one.traced is None and one.file else one.reading
    if own != reading:
        raise ModelError(f"{path}: its recipe has other channels, or another range of values, than the model's")
    return in_classes(replace(one, reading=own), model.names, section.classes)


def one_traced(teacher: Teaching) -> Segmenter | None:
    """The network, where the teacher is one that is known operator by operator."""
    return teacher.traced if isinstance(teacher, Member) else None


def real_pictures(paths: Sequence[Path], net: Network, reading: Reading) -> torch.Tensor:
    """As the network reads them, real values [N, channels, H, W]."""
    return net.real(torch.from_numpy(np.stack([read_image(path, net.traced_size, reading) for path in paths])))


def prepare(
    teachers: Sequence[Teaching],
    dataset: Dataset,
    size: Size,
    cache: Path,
    tta: Sequence[str],
    live: bool,
    seed: int,
    class_weights: ClassWeights = None,
) -> Prepared:
    """Images, labels and the teachers' maps, at `size`, from the cache where they are there. `live`: whether the
    teachers look at every view themselves. Raises DataError."""
    samples = [*dataset.train, *dataset.unlabelled]
    masks = [sample.mask for sample in dataset.train if sample.mask]
    with processes.in_turn():
        packed = pack_images([sample.image for sample in samples], size, cache, dataset.reading)
        labels = pack_masks(masks, size, cache, dataset.coding)
        val = pack_images([sample.image for sample in dataset.val], size, cache, dataset.reading)
    names = [teacher.identity for teacher in teachers]
    stored = stored_maps(teachers, dataset, packed, cache, tta)
    candidates = range(len(masks) or len(samples))
    count = min(HELD_OUT, len(samples) // 5, len(candidates))
    held_out = sorted(random.Random(seed).sample(candidates, max(1, count)))
    examples = Examples(
        packed.array,
        labels.array,
        len(dataset.classes),
        tuple(held_out),
        references_of(held_out, labels.array, stored),
        hopeless(stored.maps, stored.uncertainty, len(masks)),
        multilabel=dataset.multilabel,
    )
    how = {"joined": 1} if len(teachers) > 1 else {}
    key = identity("data", 1, images=packed.key, labels=labels.key, val=val.key, teachers=names, tta=sorted(tta), **how)
    examples = replace(examples, weights=_weights(class_weights, examples))
    teacher = LiveTeacher.of(live_networks(teachers), dataset.multilabel) if live else stored
    return Prepared(packed, examples, stored, teacher, val.array, key)


def live_networks(teachers: Sequence[Teaching]) -> list[Network]:
    """Those of teachers that look at every view themselves. Raises ModelError for one that cannot."""
    found = [(teacher.path, one_traced(teacher)) for teacher in teachers]
    if unknown := [path for path, known in found if known is None]:
        raise ModelError(
            f"{unknown[0]}: cannot look at every view, for it is no network that can be traced, or has its classes in "
            "another order; set live_teacher = false under [train]"
        )
    return [known.network for _, known in found if known]


def stored_maps(
    teachers: Sequence[Teaching], dataset: Dataset, packed: Packed, cache: Path, tta: Sequence[str] = ()
) -> StoredTeacher:
    """What the teachers say of the images to learn from, `packed`; each one's is kept, so that one more costs its own
    alone. Raises a CompressError."""
    size, multilabel = (packed.array.shape[1], packed.array.shape[2]), dataset.multilabel
    paths = [sample.image for sample in (*dataset.train, *dataset.unlabelled)]

    def of(teacher: Teaching) -> np.ndarray:
        with processes.in_turn():
            if isinstance(teacher, MapFolder):
                return maps_in_folder(maps_of(teacher, dataset), size, cache)
            same = teacher.size == size
            images = packed if same else pack_images(paths, teacher.size, cache, dataset.reading)
        return teacher_maps(teacher, images, size, cache, tta, multilabel)

    names = [f"{teacher.identity} {','.join(sorted(tta))}" for teacher in teachers]
    each = [of(teacher) for teacher in teachers]
    with processes.in_turn():
        whole = joined_maps(each, names, packed.key, cache, multilabel)
    return StoredTeacher(whole[:, :-1], whole[:, -1], multilabel=multilabel)


def _weights(wanted: ClassWeights, examples: Examples) -> tuple[float, ...]:
    if wanted and examples.multilabel:
        raise DataError("train.class_weights: are of classes of which a pixel has one, not of labels; leave them out")
    if wanted != "balanced":
        return wanted or ()
    counted = [index for index in examples.trained_on() if index < len(examples.labels)]
    if not counted:
        raise DataError("train.class_weights: no image to learn from has a label to count; write a list of weights")
    found = balanced(examples.labels[counted], examples.classes)
    log.info("class weights: %s", ", ".join(f"{weight:.3g}" for weight in found))
    return found


def with_teacher(teacher: Segmenter, before: Prepared, dataset: Dataset, cache: Path) -> Prepared:
    """The same, with another teacher: its maps, computed here, or itself where teachers look at every view."""
    if isinstance(before.teacher, LiveTeacher):
        return replace(before, teacher=LiveTeacher.of([teacher.network], teacher.multilabel))
    stored = stored_maps([traced_member(teacher, Path(), dataset.reading)], dataset, before.packed, cache)
    left_out = hopeless(stored.maps, stored.uncertainty, len(before.examples.labels))
    return replace(before, examples=replace(before.examples, left_out=left_out), stored=stored, teacher=stored)


def random_pixels(examples: Examples, count: int, size: tuple[int, int], seed: int) -> torch.Tensor:
    """Images to learn from at `size`, uint8 [count or fewer, H, W, channels]."""
    used = examples.trained_on()
    picked = random.Random(seed).sample(used, min(count, len(used)))
    return torch.cat([shrink(torch.from_numpy(examples.pixels[i : i + 1].copy()), size) for i in picked])


def with_features(
    teacher: Teacher,
    heavy: Segmenter,
    plan: PrunePlan,
    examples: Examples,
    count: int,
    size: tuple[int, int],
    seed: int,
) -> Teacher:
    """The teacher with the heavy model's features too, at the channels of the branches that the plan keeps: of a random
    part of `count` of the images at `size`; a live teacher gives them with every view. The same teacher where `count`
    is 0."""
    used = examples.trained_on()
    picked = random.Random(seed).sample(used, min(count, len(used)))
    if not picked:
        return teacher
    net, channels = heavy.network, heavy.channels
    names = feature_tensors(without(heavy.folded, channels, plan.gone)[0])
    if isinstance(teacher, LiveTeacher):
        pixels = random_pixels(examples, DEVIATION, size, seed)
        return teacher.with_features(net, channels, plan.kept, pixels, names)
    assert isinstance(teacher, StoredTeacher)
    generator = torch.Generator().manual_seed(seed)
    height, width = examples.pixels.shape[1:3]
    views = [(i, random_view(height, width, generator)) for i in picked]
    features = teacher_features(net, channels, plan.kept, examples.pixels, views, size, cache_folder(), names)
    return replace(teacher, features=features)
