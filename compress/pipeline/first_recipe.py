"""The recipe to begin with: what was found out of a model, and what was guessed, each said beside its value."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compress.errors import RecipeError, WriteError, one_line
from compress.load.draft import Draft, Told, drafted
from compress.load.model import Segmenter, load
from compress.prune.cost import predicted_bytes
from compress.prune.widths import narrowest
from compress.recipe import check_model

SHARE = 0.25
"""Of the bytes that int8 alone leaves: what is guessed as the budget."""
ROOM = 1.25
"""... but at least so many times the smallest."""


def write_first_recipe(path: Path, told: Told, out: Path | None = None, trust_pickle: bool = False) -> Iterator[str]:
    """Writes the recipe of the model in `path` to `out`, by default beside it, which is not there yet; gives what to
    say of it. Raises RecipeError, WriteError and ModelError."""
    check_model(path)
    out = out or path.with_suffix(".toml")
    if out.exists():
        raise RecipeError(f"{out}: is there already, and stays as it is; name another with --out")
    if told.arch and told.folder.resolve() != out.parent.resolve() and _is_file(told.arch):
        raise RecipeError(
            f"{told.folder / told.arch}: a recipe lies beside its code; add --out {told.folder}/NAME.toml"
        )
    draft = drafted(path, told, trust_pickle)
    text = recipe_text(draft, draft.trained or load(path, draft.recipe, trust_pickle), told, out.parent)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise WriteError(f"{out}: cannot be written: {error.strerror}; choose another folder") from None
    yield f"{out}: written; look at what it guesses, then"
    named = "" if out == path.with_suffix(".toml") else f" --recipe {out}"
    yield f"  compress run {path}{named} --dry-run"


def recipe_text(draft: Draft, model: Segmenter, told: Told, folder: Path) -> str:
    """TOML for a file in `folder`."""
    recipe, why = draft.recipe, draft.why
    smallest, whole = _sizes(model)
    size = max(SHARE * whole, ROOM * smallest)
    lines = [
        f"name = {_value(recipe.name)}",
        f"budget = [{_value(_rounded(size))}]"
        + _comment(
            f"guessed: int8 alone makes {_rounded(whole)} of it, and the smallest student has {_rounded(smallest)}"
        ),
        "",
        "[model]",
    ]
    for key, value in recipe.model.model_dump().items():
        if key == "architecture" and value and not _is_file(value):
            lines.append(f"# what an installed package makes is named at each run: --arch {_value(value)}")
        elif value not in (None, []):
            lines.append(f"{key} = {_value(value)}{_comment(why.get(key, ''))}")
    lines += [
        "",
        "[preprocess]  # (pixel / 255 - mean) / std",
        *filter(None, [_comment(why["pixels"]).strip()]),
        f"mean = {_value(recipe.preprocess.mean)}",
        f"std = {_value(recipe.preprocess.std)}",
        "",
        "[data]",
        f"folder = {_value(os.path.relpath(told.data, folder))}  # train/ and val/, each images/ and masks/"
        if told.data
        else '# folder = "DIR"  # train/ and val/, each images/ and masks/; or --data DIR',
        "",
        "[train]",
        f"minutes = {recipe.train.minutes:g}  # for a first look; half an hour and more make better students",
        "",
    ]
    return "\n".join(lines)


def _sizes(model: Segmenter) -> tuple[int, int]:
    """Bytes of the smallest student, and of the whole model as int8."""
    net, channels = model.folded, model.channels
    least, most = (predicted_bytes(net, channels, widths) for widths in (narrowest(channels), channels.widths()))
    return least, most


def _rounded(size: float) -> str:
    """Two digits, rounded up: "1.3MB"."""
    unit, name = (1e6, "MB") if size >= 1e6 else (1e3, "KB")
    step = unit * (0.1 if size < 10 * unit else 1)
    return f"{-(-size // step) * step / unit:g}{name}"


def _is_file(architecture: str) -> bool:
    return architecture.partition(":")[0].endswith(".py")


def _value(value: Any) -> str:
    """A text, number or list as TOML writes it."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(why: str) -> str:
    return f"  # {one_line(why)}" if why else ""
