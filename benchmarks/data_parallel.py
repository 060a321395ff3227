"""How much faster two processes train than one, at one thread each and at the same batches.

    torchrun --standalone --nproc-per-node 2 benchmarks/data_parallel.py [--unet] [--ddp] [--turns 8]

The student is the light one, or with --unet a U²-Net that is cut to 4 MB, whose layers are wider and whose moments take
minutes at first; both have random weights, and read 8 images of 256x256 in a step, which is that of
`compress.train.loop`. The processes take turns: a step together, and the same by the first one alone while the others
wait; with --ddp also the same together with the gradients summed by torch's DistributedDataParallel in place of
`compress.train.processes`. Images and the teacher's maps are noise. Where other programs keep the cores busy the clock
says little; what a step uses of a processor's time says what it could be.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from qat_step import student_of
from throughput import noise
from torch import Tensor, nn

from compress.graph.network import Network
from compress.load.trace import fold_normalisation, trace
from compress.machine import prepare_process
from compress.measure.statistics import bootstrap_mean
from compress.recipe import Schedule, Training
from compress.train import processes
from compress.train.light import Light
from compress.train.loop import Progress
from compress.train.loss import batch_loss

SIZE = (256, 256)
TRAINING = Training(Schedule(steps=1000), 8, 1e-5, SIZE)
WARM_UP = 2


class Loss(nn.Module):
    """Of a part of a batch, as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, progress: Progress):
        super().__init__()
        self.net, self.progress = progress.net, [progress]

    def forward(self, pixels: Tensor, *aims: Tensor) -> Tensor:
        progress = self.progress[0]
        return batch_loss(self.net, progress.teacher, progress.share, pixels, *aims)


def with_ddp(progress: Progress) -> Callable[[], float]:
    """A step whose gradients DistributedDataParallel sums, of which it gives the mean."""
    module = nn.parallel.DistributedDataParallel(Loss(progress), gradient_as_bucket_view=True)
    of_all = processes.summed

    def gradients(*given: Tensor) -> list[Tensor]:
        module.zero_grad()
        loss = module(*given)
        loss.backward()
        return [loss.detach(), *(dist.get_world_size() * one.grad for one in progress.parameters)]

    def summed(*tensors: Tensor) -> list[Tensor]:
        return [*of_all(*tensors[:1]), *tensors[1:]]

    def step() -> float:
        with mock.patch.object(progress, "gradients", gradients), mock.patch.object(processes, "summed", summed):
            return progress.step(0.5)

    return step


def alone(progress: Progress) -> float:
    if not processes.first():
        return 0.0
    with mock.patch.object(processes, "several", return_value=False):
        return progress.step(0.5)


def taken(step: Callable[[], float]) -> np.ndarray:
    """Seconds by the clock, and of processor time, of the process that takes most."""
    dist.barrier()
    start, used = time.perf_counter(), time.process_time()
    step()
    both = torch.tensor([time.perf_counter() - start, time.process_time() - used], dtype=torch.float64)
    dist.all_reduce(both, dist.ReduceOp.MAX)
    return both.numpy()


def student(unet: bool) -> Network:
    if unet:
        return student_of(None).resized(SIZE)
    return fold_normalisation(trace(Light().eval(), SIZE, 0, 2, Light.MEAN, Light.STD)[0])


def main(options: argparse.Namespace) -> None:
    prepare_process()
    torch.set_num_threads(1)
    processes.join()
    torch.manual_seed(0)
    net = student(options.unet)
    with TemporaryDirectory(prefix="compress-") as folder:
        trained = [Progress(net, *noise(SIZE, 2, Path(folder)), TRAINING) for _ in range(2 + options.ddp)]
        trained[0].begin()
        for progress in trained[1:]:  # from the same moments, which take longer than the steps
            progress.optimizer.moments, progress.update = trained[0].optimizer.moments, progress._update
        steps = {"together": partial(trained[0].step, 0.5), "alone": partial(alone, trained[1])}
        if options.ddp:
            steps["with DDP"] = with_ddp(trained[2])
        turns = [{name: taken(step) for name, step in steps.items()} for _ in range(WARM_UP + options.turns)][WARM_UP:]
    if not processes.first():
        return
    count = sum(each.numel() for each in trained[0].parameters)
    print(f"{count:,} weights; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {options.turns} turns")
    for name in steps:
        seconds, used = np.median([turn[name] for turn in turns], 0)
        speed = TRAINING.batch / seconds
        print(f"{name}: {speed:.2f} images/s, {seconds:.3f} s a step, {used:.3f} s of processor time (medians)")
    for name in [name for name in steps if name != "alone"]:
        ratios = [bootstrap_mean([turn["alone"][kind] / turn[name][kind] for turn in turns]) for kind in range(2)]
        by_clock, by_processor = (f"{each.mean:.2f} [{each.low:.2f}, {each.high:.2f}]" for each in ratios)
        print(f"{name}: {by_clock} times as fast as alone; {by_processor} by processor time")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unet", action="store_true")
    parser.add_argument("--ddp", action="store_true")
    parser.add_argument("--turns", type=int, default=8)
    main(parser.parse_args())
