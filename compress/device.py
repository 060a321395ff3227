"""Where training runs, and in which arithmetic."""

import copy
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def best_device() -> torch.device:
    """The first GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself: where it is emulated, it is many times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """Convolutions in bfloat16 where the device has it; all else, and every weight, in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))


def placed(net: Module) -> Module:
    """A copy where it is fastest, and in the memory layout that is fastest there."""
    return copy.deepcopy(net).to(best_device()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
