"""The code that makes a module: in a file beside the recipe, or in an installed package."""

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from compress.errors import ModelError
from compress.load.faithful import first_line


def made(folder: Path, architecture: str) -> nn.Module:
    """The module that "file.py:Name" of `folder`, or "package.module:Name", makes, or "...:Name(classes=3)" with
    arguments that are plain values. Raises ModelError."""
    place, _, call = architecture.partition(":")
    name, arguments = _parsed(call, architecture)
    try:
        with _importable(folder):
            module = getattr(_code(folder, place), name)(**arguments)
    except ModelError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(f"{folder / place}: {name}() failed: {type(error).__name__}: {_said(error)}") from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"{folder / place}: {name}() gives a {type(module).__name__}; it must give a torch module")
    return module


def _said(error: BaseException) -> str:
    hint = ""
    if any(
        word in f"{type(error).__name__} {error}" for word in ("URLError", "urlopen", "HTTP", "resolve", "Connection")
    ):
        hint = "; it wants to download something: have it build without, such as by encoder_weights=None"
    return first_line(error) + hint


def _parsed(call: str, architecture: str) -> tuple[str, dict[str, Any]]:
    """The name, and the keyword arguments, none of which is code."""
    try:
        node = ast.parse(call, mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, {}
        assert isinstance(node, ast.Call)
        assert isinstance(node.func, ast.Name)
        assert not node.args
        return node.func.id, {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg}
    except (SyntaxError, ValueError, AssertionError):
        raise ModelError(
            f"{architecture}: is no Name or Name(key=value, ...) with plain values after the colon"
        ) from None


def _code(folder: Path, place: str) -> ModuleType:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    source = folder / place
    if Path(place).is_absolute() or ".." in Path(place).parts:
        raise ModelError(f"{source}: lies outside the recipe's folder; its code is not run: put it beside the recipe")
    spec = importlib.util.spec_from_file_location(f"architecture_{source.stem}", source)
    if spec is None or spec.loader is None or not source.is_file():
        raise ModelError(f"{source}: no such file; model.architecture in the recipe names a file beside it")
    code = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = code
    spec.loader.exec_module(code)
    return code


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Code beside the recipe may import its neighbours."""
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))
