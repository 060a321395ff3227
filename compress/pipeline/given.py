"""A student of another make than the model: loaded as a model is, and trained without a cut."""

import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from compress.budget import Budget
from compress.data.images import Size
from compress.errors import BudgetError, ModelError
from compress.graph.network import Network, Node
from compress.load.architecture import made
from compress.load.model import Segmenter, read_weights, traced
from compress.load.weights import fit_part, untrained_norms
from compress.pipeline.plan import CHECK_TIMER, untrained
from compress.pipeline.prepare import random_pixels
from compress.pipeline.student import Begun, StudentSettings
from compress.prune.cost import macs_of
from compress.prune.widths import PrunePlan
from compress.recipe import Recipe
from compress.train.examples import Examples
from compress.train.light import SIZES, Light
from compress.train.teacher import Teacher

log = logging.getLogger("compress")

STANDARDISED = 16
"""Images that layers without weights of their own are standardised on."""


@dataclass(frozen=True, eq=False)
class Given:
    """A network that is trained as it is, and what to call it. `new`: its layers that begin from random weights."""

    name: str
    model: Segmenter
    new: frozenset[str]

    def describe(self) -> str:
        layers = len(self.model.folded.weighted())
        return f"{self.name}: {len(self.new)} of {layers} layers begin from random weights"


def given_students(
    recipe: Recipe, size: Size, trust_pickle: bool = False, *, multilabel: bool = False
) -> Iterator[Given]:
    """The recipe's student, for images of that size, which tells as many classes as the model, and several at once
    where that does; of our own all, the largest first. Raises ModelError where it cannot be made, or has other
    outputs."""
    assert recipe.student.network
    for name, make in _modules(recipe):
        torch.manual_seed(recipe.seed)
        yield _given(name, make(), recipe, size, trust_pickle, multilabel)


def _given(name: str, module: nn.Module, recipe: Recipe, size: Size, trust_pickle: bool, multilabel: bool) -> Given:
    brought = not _begins_anew(module)
    covered: Collection[str] = ()
    if recipe.student.weights:
        path = recipe.student.weights
        covered = fit_part(read_weights(path, trust_pickle), module, path)
    try:
        net, _ = traced(module, _read_as(recipe, size, multilabel))
    except ModelError as error:
        raise ModelError(f"student {name}: {error}") from None
    model = Segmenter(net, tuple(recipe.model.classes), multilabel)
    layers = [node.name for node in model.folded.weighted()]
    new = frozenset(name for name in layers if f"{name}.weight" not in covered and not (brought and not covered))
    return Given(name, model, new)


def _modules(recipe: Recipe) -> list[tuple[str, Callable[[], nn.Module]]]:
    """By name, and made when they are asked for."""
    student = recipe.student
    assert student.network
    if student.network != "light":
        folder, named = student.folder or recipe.folder, student.network
        return [(named, lambda: made(folder, named).float().eval())]
    if recipe.model.channels != 3:
        raise ModelError(f"student light: reads RGB, and the model {recipe.model.channels} channels; name your own")
    classes = len(recipe.model.classes)
    return [(f"light, {name}", partial(Light, classes, *of)) for name, of in SIZES.items()]


def _begins_anew(module: nn.Module) -> bool:
    """Whether nothing says that the module made itself from weights that were trained: its norms saw images then."""
    norms = [each for each in module.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    return len(untrained_norms(module)) == len(norms)


def _read_as(recipe: Recipe, size: Size, multilabel: bool) -> Recipe:
    """The recipe as one of the student: its size, and what our own reads pixels as."""
    model = recipe.model.model_copy(update={"input_size": size, "output": None, "multilabel": multilabel})
    told = recipe.model_copy(update={"model": model})
    if recipe.student.network != "light":
        return told
    preprocess = recipe.preprocess.model_copy(update={"mean": Light.MEAN, "std": Light.STD})
    return told.model_copy(update={"preprocess": preprocess})


def check_fits(given: Given, settings: StudentSettings, budget: Budget) -> int:
    """Bytes of the largest file that it will be. Raises BudgetError where those, or its work, or the time that it takes
    here, are more than granted."""
    net, how, what = given.model.folded, settings.planning, f"student {given.name}: "
    if budget.macs is not None and (work := macs_of(net)) > budget.macs:
        raise BudgetError(f"{what}multiplies {work:,} times, of {budget.macs:,}; {_NARROWER}")
    with TemporaryDirectory(prefix="compress-") as folder:
        size = max(path.stat().st_size for path in untrained(net, how, Path(folder)))
        if budget.size_bytes is not None and size > budget.size_bytes:
            raise BudgetError(f"{what}has {size:,} bytes as int8, of {budget.size_bytes:,}; {_NARROWER}")
        if budget.latency_ms is not None:
            timed = untrained(net, how.timed(), Path(folder))[0]
            took = CHECK_TIMER({"student": timed})["student"]
            if took > budget.latency_ms:
                raise BudgetError(f"{what}takes {took:.1f} ms here, of {budget.latency_ms:g}; {_NARROWER}")
    return size


_NARROWER = (
    "a given student is not cut: make it narrower, or have it cut: give it as the model, and the heavy one as --teacher"
)


def begun_with(given: Given, size_bytes: int, settings: StudentSettings, examples: Examples, teacher: Teacher) -> Begun:
    """The student, which learns from maps and labels: it has none of the teacher's channels. `size_bytes`: of its
    largest file."""
    plan = PrunePlan(given.model.channels.whole(), size_bytes)
    return Begun(given.model.folded, plan, begun(given, settings, examples), lambda: teacher)


def begun(given: Given, settings: StudentSettings, examples: Examples) -> Network:
    """What its training begins with."""
    net = given.model.folded
    if not given.new:
        return net
    pixels = random_pixels(examples, STANDARDISED, settings.distil.size, settings.seed)
    return standardised(net, net.real(pixels), given.new)


def standardised(net: Network, image: Tensor, layers: Collection[str]) -> Network:
    """A copy in which every convolution of `layers` gives each channel mean 0 and standard deviation 1 on `image`, real
    values [N, channels, H, W]: what batch normalisation would start from, so that a deep network without it learns from
    its random weights (data-dependent initialisation, Salimans and Kingma 2016, arXiv 1602.07868)."""
    weights = net.weights()

    def standardise(node: Node, value: Tensor) -> Tensor:
        if node.name not in layers:
            return value
        mean, deviation = value.mean((0, 2, 3)), value.std((0, 2, 3)).clamp_min(1e-5)
        weight, bias = weights[node.name]
        weights[node.name] = node.scale_outputs(weight, 1 / deviation), (bias - mean) / deviation
        return (value - mean.reshape(1, -1, 1, 1)) / deviation.reshape(1, -1, 1, 1)

    with torch.no_grad():
        net.run(image, visit=standardise)
        return net.rewritten(weights)
