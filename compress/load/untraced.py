"""Why a module cannot be traced, in one line: what is wrong, at which line of the user's code, and what to change."""

import inspect
import sysconfig
import traceback
from pathlib import Path

import torch
from torch import nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from compress.load.faithful import first_line

_OURS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), "<")
_GUARD = "Guard failed: "
_PYTHONS = sysconfig.get_path("stdlib")


def why_not_traced(error: Exception, module: nn.Module) -> str:
    """Of what torch.export raised."""
    if wanted := _further_inputs(module):
        return (
            f"forward() also reads {', '.join(wanted)}, and a deployed model reads one image alone; give "
            f"{'them defaults' if len(wanted) > 1 else 'it a default'}, or wrap the module in one whose forward(image) "
            "does"
        )
    place = _place(error)
    if isinstance(error, GuardOnDataDependentSymNode):
        return (
            f"{place or 'it: '}what is done there depends on the values of the image; write torch.where in place of a "
            "branch, and a fixed number in place of one that is computed from values"
        )
    line = first_line(error)
    if line.startswith(_GUARD):
        return f"it was exported for another image: {line.removeprefix(_GUARD)} does not hold"
    return f"{place}{line}"


def _further_inputs(module: nn.Module) -> list[str]:
    """Names of the inputs without a default that forward has beside the first."""
    try:
        given = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):  # it is none of Python's
        return []
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one.name for one in given[1:] if one.default is one.empty and one.kind not in several]


def _place(error: Exception) -> str:
    """ "net.py:12, y = y + 1: ", the innermost line of the user's own; empty where there is none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_the_users(frame.filename)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}, {frames[-1].line}: " if frames else ""


def _is_the_users(file: str) -> bool:
    installed = "site-packages" in file or "dist-packages" in file
    return not file.startswith(_OURS) and (installed or not file.startswith(_PYTHONS))
