"""Which arithmetic training takes, what it compiles and which memory it keeps."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from compress.train.device import autocast, has_bfloat16

CPU = torch.device("cpu")
CPUINFO = Path("/proc/cpuinfo")


def _flags() -> set[str]:
    """What Linux says an x86 processor can do; empty elsewhere."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    return set(next((line.split(":", 1)[1] for line in lines if line.startswith("flags")), "").split())


@pytest.mark.skipif(not _flags(), reason="no Linux on x86")
def test_bfloat16_is_taken_on_the_processors_that_multiply_it_and_on_no_other():
    assert has_bfloat16(CPU) == ("avx512_bf16" in _flags())


def test_a_processor_with_avx512_alone_trains_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    with autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


TWICE = """
import torch
from compress.machine import prepare_process
prepare_process()
for turn in range(2):
    print("turn", flush=True)
    for width in range(3, 1103):
        torch.nn.functional.conv2d(torch.zeros(2, 16, 16, width), torch.zeros(16, 16, 3, 3))
"""


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="convolutions are not oneDNN's")
def test_a_convolution_that_was_compiled_for_a_size_is_not_compiled_again():
    told = {"ONEDNN_VERBOSE": "profile_create"}
    asked = {name: value for name, value in os.environ.items() if "PRIMITIVE_CACHE" not in name}
    done = subprocess.run([sys.executable, "-c", TWICE], env=asked | told, capture_output=True, text=True, check=True)
    _, first, second = done.stdout.split("turn\n")
    assert first.count("cache_miss") > 1100
    assert "cache_hit" in second
    assert "cache_miss" not in second


KEPT = """
import resource
import torch
from compress.train.device import placed
placed(torch.nn.Conv2d(1, 1, 1))
for turn in range(10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16, 1024, 1024)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_the_memory_of_a_large_tensor_is_kept_for_the_next():
    done = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=True)
    assert all(int(faults) < 100 for faults in done.stdout.split()[5:])  # some move the heap's end
