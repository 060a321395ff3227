"""How long a run will take: what a stage looks at, times what one image takes here. Rough, and said to be."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from compress.data.folders import Dataset
from compress.data.images import Size
from compress.data.maps import MapFolder
from compress.graph.network import Network
from compress.measure.stability import IMAGES
from compress.pipeline.prepare import Teaching
from compress.recipe import Recipe, Training
from compress.train.device import placed

DAMAGE, REPAIR = 3.4, 5.2
"""Of the heavy model's time for an image at the same size, what measuring the damage and the repair take."""
CALIBRATIONS = 650
"""Images that int8 calibration looks at, one after another, with all that it tries."""
COMPARED, COMPARISON = 50, 6.3
"""Images that the files are compared on, and what each takes, of the student's time for one."""
STEP = 4.0
"""What a step of training takes for each image of its batch, of the network's time for one."""
READ = 0.02
"""Seconds to read a map from a file."""
JUDGED = 0.07
"""Seconds to hold one answer against its mask."""
TURNS = 1.25
"""Seconds that measuring latency takes for each second of counted inferences."""


@dataclass(frozen=True)
class Speed:
    """Seconds that a network takes for an image of its own size, where training runs and on the processor."""

    training: float
    processor: float

    @classmethod
    def of(cls, net: Network) -> "Speed":
        here, processor = placed(net), _seconds(net)
        return cls(processor if here.device.type == "cpu" else _seconds(here), processor)


def speed_of(teacher: Teaching) -> Speed:
    """Of one that teaches, by what it takes here; of a folder, whose maps are only read, next to nothing."""
    if isinstance(teacher, MapFolder):
        return Speed(READ, READ)
    if teacher.traced:
        return Speed.of(teacher.traced.network)
    pixels = torch.zeros(1, *teacher.size, teacher.reading.channels, dtype=torch.uint8)
    with teacher.looking(()) as look:
        took = _second_of_two(lambda: look(pixels))
    return Speed(took, took)


def _seconds(net: Network, clock: Callable[[], float] = time.perf_counter) -> float:
    """Of one inference."""
    pixels = torch.zeros(1, *net.traced_size, net.image_channels, dtype=torch.uint8)
    with torch.no_grad():
        return _second_of_two(lambda: net(net.real(pixels).to(net.device)).float().cpu(), clock)


def _second_of_two(infer: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    took = 0.0
    for _ in range(2):
        start = clock()
        infer()
        took = clock() - start
    return took


@dataclass(frozen=True)
class Forecast:
    """Minutes of each stage that is to come, in order. `timed`: those that are told how long to train."""

    minutes: Mapping[str, float]
    timed: frozenset[str] = field(default=frozenset())

    def without(self, finished: Collection[str]) -> "Forecast":
        """The same where some stages take no more time."""
        return replace(self, minutes={name: 0.0 if name in finished else self.minutes[name] for name in self.minutes})

    def describe(self) -> str:
        return f"{self.total}; minutes: {', '.join(f'{name} {minutes:.1f}' for name, minutes in self.minutes.items())}"

    @property
    def total(self) -> str:
        took = _rounded(sum(self.minutes.values()))
        return f"about {took} in {len(self.minutes)} stages, less where the cache has results"

    def place(self, stage: str, spent: Mapping[str, float]) -> str:
        """For example " (stage 4 of 11, about 9 min left)", after the minutes `spent`; nothing of a part of a stage."""
        names = list(self.minutes)
        if stage not in names:
            return ""
        at = names.index(stage)
        pace = self._pace(spent)
        left = sum(self.minutes[name] * (1 if name in self.timed else pace) for name in names[at:])
        return f" (stage {at + 1} of {len(names)}, about {_rounded(left)} left)"

    def _pace(self, spent: Mapping[str, float]) -> float:
        """How much slower than foretold the stages were so far. The teacher's maps may have been in the cache."""
        known = [name for name in self.minutes if name in spent and name not in {*self.timed, "teacher"}]
        foretold = sum(self.minutes[name] for name in known)
        return min(4.0, max(0.5, sum(spent[name] for name in known) / foretold)) if foretold > 0.1 else 1.0


def _rounded(minutes: float) -> str:
    if minutes < 1:
        return "a minute" if minutes > 0.5 else "half a minute"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def forecast(
    recipe: Recipe,
    speed: Speed,
    dataset: Dataset,
    teachers: Sequence[Speed],
    references: Sequence[Speed],
    given: Size | None = None,
    trials: int = 1,
) -> Forecast:
    """Of a run of `recipe` with these teachers, whose files are measured beside these references. `speed`: of the heavy
    model that is cut, or of the student where one is `given`, for images of that size; `trials`: of how many students
    one is chosen."""
    share = 1.0 if given else recipe.plan.macs_share**0.5  # small layers take more than their part
    images, val = len(dataset.train) + len(dataset.unlabelled), len(dataset.val)
    heavy, own = speed.training, given or recipe.model.input_size
    asked = sum(each.training for each in teachers)

    def at(size: tuple[int, int]) -> float:
        return heavy * size[0] * size[1] / (own[0] * own[1])

    def training(settings: Training, of: float, live: bool) -> float:
        """Seconds. `of`: the network's share of the heavy model's time."""
        if settings.schedule.steps is None:
            return 60 * settings.schedule.minutes
        looked = asked / heavy if live else 0.0
        return settings.schedule.steps * settings.batch * at(settings.size) * (STEP * of + looked)

    live, train = recipe.train.live_teacher, recipe.training
    views = sum([1, "flip" in recipe.teacher.tta, 0.6 * ("scale" in recipe.teacher.tta)])
    seconds = {"teacher": asked * images * views}
    if train("tune").schedule:
        tuned = 0.0 if live else images * heavy
        seconds |= {"tune": training(train("tune"), 1.0, live), "tuned teacher": tuned}
    if trials > 1:
        seconds["trial"] = 60 * trials * recipe.student.trial_minutes
    for cut in range(1, 1 if given else recipe.plan.cuts + 1):
        tag = "" if cut == recipe.plan.cuts else f"-{cut}"
        seconds[f"plan{tag}"] = recipe.plan.images * DAMAGE * at(recipe.plan.size)
        seconds[f"repair{tag}"] = recipe.repair.images * REPAIR * at(recipe.repair.size)
        if tag and train("between").schedule:
            seconds[f"between{tag}"] = training(train("between"), share, live)
    if train("distil").schedule:
        features = 0.0 if live or given else min(recipe.train.features, images) * at(recipe.train.size)
        seconds["distil"] = features + training(train("distil"), share, live)
    seconds["ptq"] = CALIBRATIONS * share * heavy
    if recipe.quantize == "qat" and train("qat").schedule:
        seconds["qat"] = training(train("qat"), share, live)
    seconds["export"] = 2.0
    seconds["verify"] = min(COMPARED, val) * COMPARISON * share * speed.processor
    if recipe.controls.run:
        again = [name for name in seconds if name.startswith(("repair", "between", "distil", "ptq", "qat"))]
        seconds["controls"] = sum(seconds[name] for name in again) * (2 if recipe.controls.small else 1)
    looks = val + 3 * min(IMAGES, val)
    files = len(references) + len(recipe.formats)
    beside = sum(each.processor for each in references)
    seconds["measure"] = looks * (beside + speed.processor * share * len(recipe.formats)) + files * (
        TURNS * recipe.measure.seconds + val * JUDGED + 1
    )
    trained = [name for name in seconds if name.startswith(("tune", "trial", "between", "distil", "qat"))]
    timed = frozenset(trained) - {"tuned teacher"} if recipe.train.steps is None else frozenset()
    return Forecast({name: took / 60 for name, took in seconds.items()}, timed)
