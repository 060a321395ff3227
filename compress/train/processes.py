"""Several processes, started by torchrun, that train one network: what each does, and what they tell one another.

Data parallelism with one sum of all gradients after each step's backward pass (Li et al. 2020, arXiv 2006.15704).
torch's DistributedDataParallel sums them while the pass goes on, from hooks which torch.autograd.grad does not call and
which a recorded graph (`compress.train.device.Replayed`) cannot hold without a warm-up of its own; the students here
have a few megabytes of gradients, whose sum takes a small part of a step.

Without torchrun everything here is what one process does alone.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from compress.errors import DataError, RecipeError, TrainError
from compress.files import cached
from compress.machine import are_several

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""How long one process waits for another, which may be reading all images. torchrun ends the others when one dies."""


def join() -> None:
    """Meet the other processes that torchrun started: over NCCL where each has a GPU, which is its own from then on,
    else over gloo; what is told, and no gradient, always goes over gloo. Raises RecipeError for more processes than
    GPUs, and TrainError where they do not find one another."""
    if not are_several() or several():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        here, there = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
        if here > there:
            raise RecipeError(f"{here} processes for {there} GPUs: give torchrun --nproc-per-node {there}")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise TrainError(f"the processes do not find one another ({reason}); start them with torchrun") from None


def leave() -> None:
    """From here on the first process goes on alone, and the others end. Each may leave more than once."""
    if not several():
        return
    others = not first()
    dist.destroy_process_group()
    if others:
        raise SystemExit(0)


def several() -> bool:
    return dist.is_available() and dist.is_initialized()


def first() -> bool:
    """Whether this is the process that reads and writes for all."""
    return not several() or dist.get_rank() == 0


def part(count: int) -> tuple[slice, float]:
    """Which of `count` images of a batch this process looks at, in shares that differ by one at most, and how much
    their mean weighs in that of all. With more processes than images some look at one that weighs nothing."""
    if not several():
        return slice(0, count), 1.0
    rank, processes = dist.get_rank(), dist.get_world_size()
    begin, end = (number * count // processes for number in (rank, rank + 1))
    if begin == end:
        return slice(0, 1), 0.0
    return slice(begin, end), (end - begin) / count


def summed(*tensors: Tensor) -> list[Tensor]:
    """Of float32 tensors of the same shapes in all processes, the sums, to the same bits in all of them. Raises
    TrainError where another process is gone."""
    if not several():
        return list(tensors)
    flat = torch.cat([each.flatten() for each in tensors])
    with _together():
        dist.all_reduce(flat)
    parts = flat.split([each.numel() for each in tensors])
    return [one.view_as(each) for one, each in zip(parts, tensors, strict=True)]


def from_first(make: Callable[[], T]) -> T:
    """What `make` gives in the first process, which alone calls it. Raises as `summed` does."""
    if not several():
        return make()
    told = [make() if first() else None]
    with _together():
        dist.broadcast_object_list(told, device=torch.device("cpu"))
    return told[0]  # type: ignore[return-value]


@contextmanager
def in_turn() -> Iterator[None]:
    """The first process does what is inside before the others, who find in the cache what it has kept there. What a
    user must mend ends it before another meets it."""
    if not first():
        from_first(lambda: None)
    yield
    if first():
        from_first(lambda: None)


def in_shares(items: Sequence[T], make: Callable[[T], np.ndarray]) -> Iterator[np.ndarray]:
    """What `make` gives of each item, in order, in every process, each of which makes its part: uint8 arrays of one
    shape. Raises as `summed` does."""
    processes = dist.get_world_size() if several() else 1
    for begin in range(0, len(items), processes):
        block = items[begin : begin + processes]
        if processes == 1:
            yield make(block[0])
            continue
        own = torch.from_numpy(make(block[min(dist.get_rank(), len(block) - 1)]))
        made = [torch.empty_like(own) for _ in range(processes)]
        with _together():
            dist.all_gather(made, own)
        yield from (each.numpy() for each in made[: len(block)])


def cached_in_shares(path: Path, make: Callable[[Path | None], None]) -> None:
    """As `compress.files.cached` with `resumable`, where all processes `make` it together: the first gets the name to
    write to, and alone holds the lock; the others get None. Raises DataError also where they do not see the file."""

    def ask(partial: Path) -> None:
        from_first(lambda: True)
        make(partial)

    if first():
        cached(path, ask, resumable=True)
        from_first(lambda: False)
        return
    while from_first(lambda: False):
        make(None)
    if not path.exists():
        raise DataError(f"{path}: one process wrote it, and another does not see it: share the folder COMPRESS_CACHE")


@contextmanager
def _together() -> Iterator[None]:
    """Raises TrainError where another process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise TrainError(
            "another process of this run ended before its time; what is finished is kept: go on with --resume"
        ) from error
