"""Where training runs, in which arithmetic and in which memory."""

import copy
import ctypes
import functools
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # as malloc.h has them


def best_device() -> torch.device:
    """The first GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself: where it is emulated, it is many times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.cpu._is_avx512_supported():  # oneDNN says yes to all of these, and emulates it: a third of float32's speed
        return bool(torch.cpu._is_avx512_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """Convolutions in bfloat16 where the device has it; all else, and every weight, in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))


@functools.cache
def _keep_memory() -> None:
    """From now on. glibc gives what a tensor of more than 32 MB has left back to the system, which fills it with zeros
    before the next tensor has it: a fifth of a step of training, and of the heavy U²-Net's a third."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def placed(net: Module) -> Module:
    """A copy where it is fastest, and in the memory layout that is fastest there."""
    _keep_memory()
    return copy.deepcopy(net).to(best_device()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Replayed:
    """A function of tensors that does the same with all tensors of the same shapes. On a GPU what it launches is
    recorded as one graph (torch.cuda.CUDAGraph) and replayed: a network of many small layers spends most of its time
    on launching them one by one else. What it gives is overwritten by the next call; elsewhere it is simply called.
    """

    def __init__(self, function: Callable[..., list[Tensor]]):
        self.function = function
        self.pool: Any = None  # of memory, which the recordings share
        self.recorded: dict[tuple[torch.Size, ...], _Recording | None] = {}

    def __call__(self, *given: Tensor) -> list[Tensor]:
        if given[0].device.type != "cuda":
            return self.function(*given)
        key = tuple(each.shape for each in given)
        if key not in self.recorded:  # once as it is: libraries are loaded, and states made, that outlive the graph
            self.recorded[key] = None
            return self.function(*given)
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        recording = self.recorded[key] = self.recorded[key] or _Recording(self.function, given, self.pool)
        return recording.replay(given)


class _Recording:
    def __init__(self, function: Callable[..., list[Tensor]], given: tuple[Tensor, ...], pool: Any):
        self.given, self.graph = [each.clone() for each in given], torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool):
            self.made = function(*self.given)

    def replay(self, given: tuple[Tensor, ...]) -> list[Tensor]:
        for mine, theirs in zip(self.given, given, strict=True):
            mine.copy_(theirs)
        self.graph.replay()
        return self.made
