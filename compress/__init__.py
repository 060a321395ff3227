"""Compress a trained image segmenter to a byte budget, export it to ONNX and TFLite, and measure the files.

    recipe = compress.read_recipe(Path("models/u2net.toml")).with_flags(budget=["4MB"], data=Path("data/demo"))
    record = compress.run(recipe, Path("models/u2net.pt"), Path("export/u2net"))

Errors that a user can mend are `CompressError`s (`compress.errors`).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.errors import CompressError
    from compress.pipeline.run import run
    from compress.recipe import Recipe, read_recipe
    from compress.report.record import RunRecord

__all__ = ["CompressError", "Recipe", "RunRecord", "read_recipe", "run"]

_HOMES = {
    "CompressError": "compress.errors",
    "Recipe": "compress.recipe",
    "RunRecord": "compress.report.record",
    "read_recipe": "compress.recipe",
    "run": "compress.pipeline.run",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that the command starts at once."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
