"""Folders of images and the teachers -> what the student learns from and is measured on."""

import hashlib
import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from compress.data.folders import Dataset, open_dataset, open_unlabelled
from compress.data.packed import Packed, pack_images, pack_masks
from compress.errors import DataError, ModelError
from compress.files import cache_folder, digest
from compress.graph.channels import find_groups
from compress.graph.network import Network
from compress.load.model import Trained, load
from compress.load.trace import fold_normalisation
from compress.prune.widths import PrunePlan
from compress.recipe import Recipe, read_recipe
from compress.train.examples import Lesson, hopeless
from compress.train.teacher import LiveTeacher, teacher_features, teacher_maps
from compress.train.views import random_view, shrink

HELD_OUT = 48
SPREAD = 32
"""Images that the spread of a live teacher's features is taken from."""


@dataclass(frozen=True)
class Material:
    """`packed` are the images to learn from, `images` those to measure on, uint8 [N, H, W, 3]; `key` names the content
    of everything read."""

    packed: Packed
    lesson: Lesson
    images: np.ndarray
    key: str


def dataset_of(recipe: Recipe) -> Dataset:
    """Raises DataError."""
    classes, data = recipe.model.classes, recipe.data
    if data.folder:
        return open_dataset(data.folder, classes, data.unlabelled)
    if data.unlabelled:
        return open_unlabelled(data.unlabelled, classes, recipe.seed)
    raise DataError("no images: give --data DIR with train/ and val/, or --unlabelled DIR with photographs")


@dataclass(frozen=True)
class Teacher:
    """`key` names the file and all of its recipe that its maps depend on."""

    model: Trained
    key: str


def teachers_of(recipe: Recipe, model: Trained, trust_pickle: bool = False) -> list[Teacher]:
    """The model itself, or the recipe's teachers. Raises ModelError where one has other classes or another size."""
    teachers = []
    for path in recipe.teacher.models:
        own = read_recipe(path.with_suffix(".toml"))
        if own.model.classes != recipe.model.classes or own.model.input_size != recipe.model.input_size:
            raise ModelError(f"{path}: its recipe has other classes or another input size than the model's")
        teachers.append(_teacher(load(path, own, trust_pickle), own))
    return teachers or [_teacher(model, recipe)]


def _teacher(model: Trained, recipe: Recipe) -> Teacher:
    return Teacher(model, f"{model.sha256} {recipe.model} {recipe.preprocess}")


def prepare(teachers: list[Teacher], dataset: Dataset, recipe: Recipe, cache: Path) -> Material:
    """Images, labels and the teachers' maps, from the cache where they are there. Raises DataError."""
    size = recipe.model.input_size
    samples = [*dataset.train, *dataset.unlabelled]
    packed = pack_images([sample.image for sample in samples], size, cache)
    masks = [sample.mask for sample in dataset.train if sample.mask]
    labels = pack_masks(masks, size, cache, dataset.object_is_255)
    val = pack_images([sample.image for sample in dataset.val], size, cache)
    names = " ".join(teacher.key for teacher in teachers)
    maps, doubt = teacher_maps([t.model.network for t in teachers], packed, names, cache, recipe.teacher.tta)
    candidates = range(len(masks) or len(samples))
    count = min(HELD_OUT, len(samples) // 5, len(candidates))
    held_out = sorted(random.Random(recipe.seed).sample(candidates, max(1, count)))
    lesson = Lesson(
        packed.array,
        maps,
        doubt,
        labels.array,
        None,
        tuple(held_out),
        hopeless(maps, doubt, len(masks)),
        recipe.train.size,
        len(recipe.model.classes),
        live=LiveTeacher.of([teacher.model.network for teacher in teachers]) if recipe.train.live_teacher else None,
    )
    return Material(packed, lesson, val.array, f"{packed.key} {labels.key} {val.key} {names}")


def taught_by(network: Network, material: Material, cache: Path) -> Material:
    """The same, with another teacher: its maps, computed here, or itself where teachers look at every view."""
    lesson = material.lesson
    if lesson.live is not None:
        return replace(material, lesson=replace(lesson, live=LiveTeacher.of([network])))
    key = digest(*(hashlib.sha256(value.detach().numpy().tobytes()).hexdigest() for value in network.parameters()))
    maps, doubt = teacher_maps([network], material.packed, key, cache)
    left_out = hopeless(maps, doubt, len(lesson.labels))
    return replace(material, lesson=replace(lesson, maps=maps, doubt=doubt, left_out=left_out))


def random_pixels(lesson: Lesson, count: int, size: tuple[int, int], seed: int) -> torch.Tensor:
    """Images to learn from at `size`, uint8 [count or fewer, H, W, 3]."""
    taught = lesson.taught()
    picked = random.Random(seed).sample(taught, min(count, len(taught)))
    return torch.cat([shrink(torch.from_numpy(lesson.pixels[i : i + 1].copy()), size) for i in picked])


def with_features(lesson: Lesson, model: Trained, plan: PrunePlan, recipe: Recipe) -> Lesson:
    """The lesson with the heavy model's features at the channels that the plan keeps, of a random part of some of its
    images; a live teacher gives them with every view."""
    taught = lesson.taught()
    picked = random.Random(recipe.seed).sample(taught, min(recipe.train.features, len(taught)))
    if not picked:
        return lesson
    if lesson.live is not None:
        pixels = random_pixels(lesson, SPREAD, lesson.size, recipe.seed)
        channels = find_groups(fold_normalisation(model.network))
        return replace(lesson, live=lesson.live.with_features(model.network, channels, plan.kept, pixels))
    generator = torch.Generator().manual_seed(recipe.seed)
    height, width = lesson.pixels.shape[1:3]
    seen = [(i, random_view(height, width, generator)) for i in picked]
    channels = find_groups(fold_normalisation(model.network))
    folder = cache_folder()
    features = teacher_features(model.network, channels, plan.kept, lesson.pixels, seen, lesson.size, folder)
    return replace(lesson, features=features)
