"""The one training loop: distillation of the float student, then of the fake-quantized one."""

import copy
import io
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from compress.errors import TrainError
from compress.files import Sealed
from compress.graph.network import Network
from compress.machine import clock as own_clock
from compress.machine import give_way
from compress.recipe import Training
from compress.terminal.progress import tqdm
from compress.train import processes
from compress.train.batches import Batches, sizes_between
from compress.train.device import Replayed, best_device, placed
from compress.train.examples import Examples, held_out_ious
from compress.train.loss import batch_aims, batch_loss
from compress.train.optimizer import Natural
from compress.train.teacher import Teacher
from compress.train.views import shrink

log = logging.getLogger("compress")
Net = TypeVar("Net", bound=Network)

FLOOR = 0.5
"""Of the learning rate, below which it does not fall: the average over steps does what a lower one would, and does
better on other images (Izmailov et al. 2018, arXiv 1803.05407)."""

CHECKS = 10
WARM_UP = 20
MEASURED = 32
MEASURED_AT = (100, 400, 1600, 6400, 25600)
"""Steps after which the optimizer takes its moments anew."""

SAVED = 2.0
"""Minutes of training that a kill can cost at most."""

TOLERANCE = 0.01


def fit(
    net: Net,
    examples: Examples,
    teacher: Teacher,
    training: Training,
    *,
    desc: str,
    on_check: Callable[[float, float, float], None],
    state: Sealed | None = None,
    clock: Callable[[], float] = own_clock,
) -> Net:
    """Train a copy of `net` -> the last copy that the held-out images do not speak against, of those that are averaged
    over steps and of the start: its IoU there is at most TOLERANCE below that of the best, and by no more than the
    standard error of the difference. A few dozen images cannot tell copies apart that are nearer, and would choose
    the luckiest of ten.

    `Natural` steps with a short warm-up; then the rate falls along a cosine to FLOOR of it at half time, and stays.
    Steps count in the average by their number (Shamir and Zhang 2013, arXiv 1212.1824): three quarters of it are of the
    second half. About ten times `on_check(minutes, iou, loss)` is called, less often where looking at the held-out
    images would take more of the minutes than training does. Then, and every SAVED minutes, everything is written to
    the file `state`; training goes on from it when it is there and whole, to the same result where the schedule counts
    steps. Runs on the GPU where there is one, in bfloat16 where the device has it.

    Several processes (`compress.train.processes`) take the steps that one would, each with its part of every batch; the
    first one's clock and its look at the held-out images count, and it alone reads and writes `state`.

    Raises TrainError, naming the last good checkpoint, when the loss leaves the finite numbers.
    """
    schedule, clock = training.schedule, partial(processes.from_first, clock)
    cost = 0.0  # of a check, in minutes
    progress = _begun(state, lambda: Progress(net, examples, teacher, training))
    if progress is None:
        progress, start = Progress(net, examples, teacher, training), clock()
        progress.begin()
        cost = (clock() - start) / 60
    for checked in progress.checks:
        on_check(*checked)
    began, looked, saved = clock() - progress.minutes * 60, progress.minutes, progress.minutes
    with tqdm(total=100, initial=0, desc=desc, unit="%", bar_format=_BAR) as bar:
        while (done := schedule.done(progress.minutes, progress.steps)) < 1:
            give_way()
            loss = progress.step(done)
            if not math.isfinite(loss):
                where = f"; the last good checkpoint is {state.path}" if state and state.path.exists() else ""
                raise TrainError(
                    f"{desc}: the loss is {loss} at step {progress.steps}{where}; "
                    "lower train.learning_rate in the recipe"
                )
            progress.minutes = (clock() - began) / 60
            bar.n = min(100, round(100 * schedule.done(progress.minutes, progress.steps)))
            bar.set_postfix(step=progress.steps, loss=f"{progress.loss:.4f}", iou=f"{progress.iou:.4f}", refresh=True)
            due = int(CHECKS * schedule.done(progress.minutes, progress.steps)) > int(CHECKS * done)
            if due and (schedule.steps is not None or progress.minutes - looked >= cost):
                on_check(*progress.check())
                looked = (clock() - began) / 60
                cost = looked - progress.minutes
            if state is not None and (due or progress.minutes - saved >= SAVED):
                progress.save(state)
                saved = progress.minutes
    if not progress.checks or progress.checks[-1][0] < progress.minutes:
        on_check(*progress.check())
    return cast(Net, progress.kept.cpu())


def _begun(state: Sealed | None, make: Callable[[], "Progress"]) -> "Progress | None":
    """The training that `state` holds; None where there is none that can be gone on with."""
    content = processes.from_first(lambda: None if state is None else state.read())
    if state is None or content is None:
        return None
    progress = make()
    try:
        progress.load(content)
    except Exception as error:  # whatever a file may hold that was made to do harm, or by another version
        log.warning("%s: cannot be used (%s): training begins anew", state.path, type(error).__name__)
        return None
    return progress


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


class Progress:
    """A training: all that a step changes, and so all that a checkpoint holds."""

    def __init__(self, net: Network, examples: Examples, teacher: Teacher, training: Training):
        self.examples, self.teacher, self.training = examples, teacher, training
        self.net = placed(net)
        self.averaged = copy.deepcopy(self.net).requires_grad_(False)
        self.kept = copy.deepcopy(self.averaged)
        self.iou = 0.0  # of `kept` on the held-out images
        self.best: list[float] = []  # the best IoU so far, image by image
        sizes = sizes_between(self.net, training.size)
        self.batches = Batches(examples, teacher, training.batch, sizes, self.net.traced_size, training.seed)
        self.measured = copy.deepcopy(self.averaged)  # the network that the optimizer takes its moments from
        self.optimizer = Natural(self.net, training.learning_rate)
        self.parameters = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        self.class_weights = _by_class(examples.weights, self.parameters[0].device)
        self.share = torch.ones((), device=self.parameters[0].device)  # of a batch, that this process looks at
        self.aims, self.gradients = Replayed(self._aims), Replayed(self._gradients)
        self.steps, self.minutes, self.loss = 0, 0.0, 0.0
        self.checks: list[tuple[float, float, float]] = []  # minutes, IoU of `kept`, loss

    def begin(self) -> None:
        """Before the first step of all."""
        self.judge(self.kept)
        self.measure()

    def measure(self) -> None:
        """On images that are evenly spread over those that are learned from."""
        images = self.batches.images
        rows = images[torch.linspace(0, len(images) - 1, min(MEASURED, len(images))).round().long()]
        pixels = shrink(torch.from_numpy(self.examples.pixels[rows.numpy()]), self.training.size)
        self.optimizer.measure(self.measured, self.net.real(pixels))
        self.update = Replayed(self._update)  # an older recording would read the older moments

    def step(self, done: float) -> float:
        """One step, at the share `done` of the schedule -> its loss; nothing is changed by one that is not finite."""
        warm = min(1.0, (self.steps + 1) / WARM_UP)
        rate = self.training.learning_rate * warm * max(FLOOR, 0.5 + 0.5 * math.cos(math.pi * min(1.0, done)))
        self.optimizer.param_groups[0]["lr"].fill_(rate)
        batch = self.batches.next(self.parameters[0].device)
        self.share.fill_(self.batches.share)
        target, weights, total, *features = self.aims(*batch)
        made = self.gradients(batch[0], target, weights, *processes.summed(total), *features)
        loss, *gradients = processes.summed(*made)
        value = loss.item()
        if not math.isfinite(value):
            return value
        self.update(*gradients)
        with torch.no_grad():
            weight = 2 / (3 + self.steps)  # the start counts once, step n n + 1 times
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.net.parameters()), weight)
        self.loss = value if not self.steps else 0.95 * self.loss + 0.05 * value
        self.steps += 1
        if self.steps in MEASURED_AT:
            self.measured.load_state_dict(self.net.state_dict())
            self.measure()
        return value

    def _aims(self, *batch: Tensor) -> list[Tensor]:
        """An image that is not of this process's share weighs nothing."""
        aims = batch_aims(self.teacher, self.training.label_weight, self.class_weights, *batch)
        return [aims[0], *(each * self.share.sign() for each in aims[1:3]), *aims[3:]]

    def _gradients(self, pixels: Tensor, *aims: Tensor) -> list[Tensor]:
        """The loss, and its gradients: this process's part of both."""
        loss = batch_loss(self.net, self.teacher, self.share, pixels, *aims)
        return [loss.detach(), *torch.autograd.grad(loss, self.parameters, materialize_grads=True)]

    def _update(self, *gradients: Tensor) -> list[Tensor]:
        """A step along the gradients, which are clipped."""
        short = (1 / (torch.nn.utils.get_total_norm(gradients) + 1e-6)).clamp_max(1)
        torch._foreach_mul_(gradients, short)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        return []

    def check(self) -> tuple[float, float, float]:
        if self.judge(self.averaged):
            self.kept.load_state_dict(self.averaged.state_dict())
        self.checks.append((self.minutes, self.iou, self.loss))
        return self.checks[-1]

    def judge(self, net: Network) -> bool:
        """Whether the held-out images let it be kept."""
        scores = processes.from_first(lambda: held_out_ious(net, self.examples))
        apart = np.array(scores) - np.array(self.best or scores)
        error = float(apart.std(ddof=1)) / math.sqrt(len(apart)) if len(apart) > 1 else 0.0
        if good := float(apart.mean()) >= -min(error, TOLERANCE):
            self.iou = float(np.mean(scores))
        if apart.mean() >= 0:
            self.best = scores
        return good

    def save(self, file: Sealed) -> None:
        """Of several processes the first one's is every other one's too."""
        if not processes.first():
            return
        buffer = io.BytesIO()
        parts = {name: getattr(self, name).state_dict() for name in (*_NETWORKS, "optimizer")}
        torch.save(
            {**parts, **{name: getattr(self, name) for name in _VALUES}, "batches": self.batches.state()}, buffer
        )
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.write(buffer.getvalue())

    def load(self, content: bytes) -> None:
        """Go on from what `save` wrote. Raises whatever torch and Python do where it is something else."""
        saved: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location=best_device())
        for name in _NETWORKS:
            getattr(self, name).load_state_dict(saved[name])
        for name in _VALUES:
            setattr(self, name, saved[name])
        self.batches.restore(saved["batches"])
        self.measure()
        self.optimizer.load_state_dict(saved["optimizer"])


def _by_class(weights: Sequence[float], device: torch.device) -> Tensor | None:
    """[classes, 1, 1]; None where all weigh 1."""
    return torch.tensor(weights, device=device)[:, None, None] if weights else None


_NETWORKS = ("net", "averaged", "kept", "measured")
_VALUES = ("iou", "best", "steps", "minutes", "loss", "checks")
