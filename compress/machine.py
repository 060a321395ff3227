"""The machine: threads, processor, versions, and what a process is prepared with."""

import os
import platform
from pathlib import Path


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


THREADS = min(2, cores())
"""As many as a phone has fast cores, but no more than there are here."""


_FULL = 0.75
"""Load on each core from which the inferences of two threads wait for others."""


def load() -> float:
    """Processes that wanted to compute during the last minute, on average; 0 where the system does not say."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return 0.0


def busy(noted: float | None = None, of: int | None = None) -> str | None:
    """A sentence where other programs keep this machine busy; None: they do not. `noted`: a load that was seen before,
    on `of` cores."""
    found, here = load() if noted is None else noted, of or cores()
    if found < _FULL * here:
        return None
    return (
        f"the machine is busy: load {found:.1f} on {here} cores; times are not to be trusted: close other programs and "
        "measure again"
    )


def prepare_process() -> None:
    """For training and for heavy networks in torch; to be called before the first convolution.

    oneDNN compiles each convolution for each size of images, and keeps 1,024 of them unless told otherwise before the
    first: fewer than a network of a hundred layers has at five sizes, forwards and backwards, so that every step at
    another size than the last would compile them all anew. What the user's environment says stays.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")


def processor() -> str:
    """Its model, where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide what a run gives, by name."""
    from importlib.metadata import version

    names = ("compress-mobile", "torch", "onnx", "onnxruntime", "ai-edge-litert", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
