"""What the graph of an exported program says of its nodes."""

import re
from pathlib import Path
from typing import Any

import torch


def operator_of(node: torch.fx.Node) -> str:
    """ "argmax" of aten.argmax.default; empty where nothing is called."""
    return str(node.target).removeprefix("aten.").partition(".")[0] if node.op == "call_function" else ""


def paths_of(program: torch.export.ExportedProgram) -> dict[str, str]:
    """By placeholder, the path of the parameter, buffer or constant that is given there."""
    signature = program.graph_signature
    return {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }


def stored_in(program: torch.export.ExportedProgram) -> dict[str, Any]:
    """By such a path, what is given."""
    return {**program.state_dict, **program.constants}


def layer_of(node: torch.fx.Node) -> str:
    """Its path in the module, where it has one, and its own name."""
    stack = node.meta.get("nn_module_stack") or {}
    path = list(stack.values())[-1][0] if stack else ""
    return f"{path}.{node.name}" if path else node.name


FRAME = re.compile(r'File "([^"]+)", line (\d+)')
TORCH, OWN = Path(torch.__file__).parent, Path(__file__).parent


def line_of(node: torch.fx.Node) -> str:
    """ " at net.py:9": the innermost line of the model's code that makes this call, where that is known."""
    frames = FRAME.findall(node.meta.get("stack_trace") or "")
    places = [(Path(file), line) for file, line in frames if not Path(file).is_relative_to(TORCH)]
    if not places or places[-1][0].is_relative_to(OWN):  # an ONNX file, which we read ourselves
        return ""
    return f" at {places[-1][0].name}:{places[-1][1]}"
