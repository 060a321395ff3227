"""A file that torch.save wrote -> the weights that fit an architecture, or what is wrong with them."""

import logging
import pickle
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.load.faithful import first_line

log = logging.getLogger("compress")

State = dict[str, Tensor]
DEEPEST = 3
"""Tables within tables, of a checkpoint."""

LARGEST_RATIO, SMALL = 10, 10**8
"""Of what an archive unpacks to: torch.save does not compress."""

NAMED, DIFFERING = 3, 10
LONGEST = 60
"""Of a file's keys, in messages; of those that differ from an architecture's more are named."""

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
WANTED = "expected what torch.save(model.state_dict()) writes"


class Skipped:
    """Stands for an object of a class that is not torch's, such as a training script's settings. Whatever a pickle does
    to it, nothing happens."""

    def __init__(self, *given: Any, **named: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None: ...

    def extend(self, values: Any) -> None: ...


def read_content(path: Path, trust_pickle: bool = False) -> Any:
    """What the file holds; no code in it is run unless `trust_pickle`: an object of a class that is not torch's is
    `Skipped`. Raises ModelError."""
    with path.open("rb") as file:
        is_pickle = file.read(1) == b"\x80"  # what torch.save wrote before 1.6
    if not is_pickle:
        _check_archive(path)
    try:
        return _loaded(path, trust_pickle)
    except pickle.UnpicklingError:
        return _weights_beside_code(path)
    except Exception as error:
        reason = first_line(error).partition(". ")[0]
        raise ModelError(f"{path}: cannot be read as a torch file: {reason}") from None


def _loaded(path: Path, trust_pickle: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch deprecates in old files
        return torch.load(path, map_location="cpu", weights_only=not trust_pickle)


def _weights_beside_code(path: Path) -> Any:
    """What a file holds beside objects of foreign classes. Raises ModelError, naming what it would import, where that
    is no weights by name, or where it cannot be told apart."""
    foreign: list[str] = []
    try:
        foreign = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
        with torch.serialization.safe_globals([(Skipped, name) for name in foreign]):
            content = _loaded(path, trust_pickle=False)
    except Exception:  # an older format, or something that torch never lets a pickle call
        content = None
    if next(_tables(content), None) is None:
        imports = f" (it would import {_listed(foreign)})" if foreign else ""
        raise ModelError(
            f"{path}: holds pickled code, not only weights{imports}; save model.state_dict() instead, "
            "or pass --trust-pickle if you trust whoever made it"
        )
    log.info("%s: %s beside the weights, skipped", path.name, _listed(foreign))
    return content


def read_safetensors(path: Path) -> State:
    """Raises ModelError."""
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:
        raise ModelError(f"{path}: cannot be read as a safetensors file: {first_line(error)}") from None


def _check_archive(path: Path) -> None:
    """Raises ModelError for a file that is no whole zip archive, or whose parts are far larger than itself."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            unpacked = sum(part.file_size for part in parts)
            if unpacked > LARGEST_RATIO * path.stat().st_size + SMALL:
                raise ModelError(f"{path}: unpacks to {unpacked:,} bytes, which is nothing that torch.save writes")
            _check_sums(archive, parts, path)
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError, OSError):
        raise ModelError(
            f"{path}: is no torch file, or only part of one; expected torch.save(model.state_dict(), ...)"
        ) from None


def _check_sums(archive: zipfile.ZipFile, parts: list[zipfile.ZipInfo], path: Path) -> None:
    """torch does not look at the sums that it wrote; it may also have been told to write none, which all are wrong
    then."""
    damaged = [part.filename for part in parts if not _whole(archive, part)]
    if 0 < len(damaged) < len(parts):
        raise ModelError(f"{path}: is damaged: {_shown(damaged[0])} is not what was stored; fetch it again")


def _whole(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(part) as stored:
            while stored.read(1 << 20):
                pass
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError):  # the last of what is encrypted
        return False
    return True


def untrained_norms(module: nn.Module) -> list[str]:
    """The layers of batch normalisation that never saw an image: mean 0 and variance 1 in every channel."""
    return [
        name
        for name, each in module.named_modules()
        if isinstance(each, nn.modules.batchnorm._BatchNorm)
        if each.running_mean is not None and each.running_var is not None
        if not each.running_mean.any() and bool((each.running_var == 1).all())
    ]


def fit_weights(content: Any, module: nn.Module, path: Path, architecture: str, dropped: Sequence[str] = ()) -> None:
    """Give a module the weights in a file's content: those of a table, however deep, whose names are the module's, but
    for what training scripts put before them, and for those that begin as one of `dropped`. Raises ModelError, naming
    the file and the key."""
    own = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    found = list({id(table): (where, _kept(_state(table), dropped)) for where, table in _tables(content)}.values())
    if not found:
        raise ModelError(f"{path}: holds no weights by name but {_described(content)}; {WANTED}")
    fitting = [(where, state, before) for where, state in found if (before := _prefix(state, own)) is not None]
    if not fitting:
        raise ModelError(f"{path}: does not fit {architecture}: {_misfit(*_nearest(found, own), own)}")
    where, state, before = _one_of(fitting, path)
    if where or before:
        log.info("%s: weights are taken from %s", path.name, _place(where, before))
    if apart := [name for name in _needed(own) if state[before + name].shape != own[name].shape]:
        raise ModelError(f"{path}: does not fit {architecture}: {_shapes(state, before, own, apart)}")
    weights = {name: _checked(state[before + name], own[name], f"{path}: {before}{name}") for name in _needed(own)}
    try:
        module.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # a module may load its weights in a way of its own
        raise ModelError(f"{path}: does not fit {architecture}: {str(error).splitlines()[-1].strip()}") from None


def fit_part(content: Any, module: nn.Module, path: Path) -> frozenset[str]:
    """Give a module those weights of a file's content that have names and shapes of its own, of the table and behind
    the prefix where there are most -> their names. Raises ModelError where there are none."""
    own = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    found = [
        {name: state[before + name] for name in own if _same_shape(state.get(before + name), own[name])}
        for state in (_state(table) for _, table in _tables(content))
        for before in ("", _likely_prefix(state, own))
    ]
    most = max(found, key=len, default={})
    weights = {name: _checked(value, own[name], f"{path}: {name}") for name, value in most.items()}
    if not weights:
        raise ModelError(f"{path}: holds no tensor with a name and a shape of the student's; {WANTED}")
    module.load_state_dict(weights, strict=False)
    return frozenset(weights)


def _same_shape(value: Tensor | None, own: Tensor) -> bool:
    return value is not None and value.shape == own.shape


def check_finite(module: nn.Module, path: Path) -> None:
    """Raises ModelError, naming the file and the layer, for weights that are infinite or NaN."""
    for name, value in module.state_dict().items():
        if isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isfinite().all()):
            kind = "NaN" if bool(value.isnan().any()) else "infinite values"
            raise ModelError(f"{path}: {name} holds {kind}; take a checkpoint from before training went wrong")


def _tables(content: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """The tables in a content that hold tensors by name, each with the keys that lead to it, the deepest first."""
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping) or len(where) > DEEPEST:
        return
    for key, value in content.items():
        if isinstance(key, str):
            yield from _tables(value, (*where, key))
    if _state(content):
        yield where, content


def _state(table: Mapping[Any, Any]) -> State:
    """Its tensors, by names without what marks the compiled parts of a model."""
    return {
        key.replace("_orig_mod.", ""): value
        for key, value in table.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }


def _kept(state: State, dropped: Sequence[str]) -> State:
    return {name: value for name, value in state.items() if not name.startswith(tuple(dropped))}


def _prefix(state: State, own: State) -> str | None:
    """What stands before the module's names in a table: "" or such as "module.", all else that begins so having a name
    of the module's; None where it has others."""
    needed = _needed(own)
    if not needed:
        return None
    for before in dict.fromkeys(name.removesuffix(needed[0]) for name in state if name.endswith(needed[0])):
        inside = {name.removeprefix(before) for name in state if name.startswith(before)}
        if (not before or before.endswith(".")) and set(needed) <= inside <= set(own):
            return before
    return None


def _needed(own: State) -> list[str]:
    """A count of batches is not in files of old."""
    return [
        name for name, value in own.items() if isinstance(value, Tensor) and not name.endswith("num_batches_tracked")
    ]


def _one_of(fitting: list[tuple[tuple[str, ...], State, str]], path: Path) -> tuple[tuple[str, ...], State, str]:
    """The one that fits; of several the average over steps, by which such models are judged. Raises ModelError."""
    if len(fitting) == 1:
        return fitting[0]
    averaged = [one for one in fitting if any("ema" in key.lower() for key in one[0])]
    if len(averaged) != 1:
        names = " and ".join(_shown(".".join(where)) if where else "no key" for where, _, _ in fitting[:NAMED])
        raise ModelError(f"{path}: holds weights that fit under {names}; save the ones that you mean alone")
    return averaged[0]


def _place(where: tuple[str, ...], before: str) -> str:
    parts = [f"under {_shown('.'.join(where))}"] if where else []
    return " ".join([*parts, *([f"those that begin with {_shown(before)}"] if before else [])])


def _nearest(found: list[tuple[tuple[str, ...], State]], own: State) -> tuple[tuple[str, ...], State]:
    """The table that shares the most names with the module, at their ends."""
    ends = set(_needed(own))
    return max(found, key=lambda one: (sum(not ends.isdisjoint(_ends(name)) for name in one[1]), len(one[1])))


def _ends(name: str) -> list[str]:
    """ "a.b.c", "b.c" and "c"."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _shapes(state: State, before: str, own: State, apart: list[str]) -> str:
    """The tensors of other shapes, and what that tells of classes."""
    pairs = [(state[before + name].shape, own[name].shape) for name in apart]
    named = [f"{_shown(before + n)} is {_by(a)} in the file and {_by(b)} in the architecture"
             for n, (a, b) in zip(apart[:DIFFERING], pairs)]  # fmt: skip
    rest = [f"{len(apart) - DIFFERING} more are others"] if len(apart) > DIFFERING else []
    counts = {(a[0], b[0]) for a, b in pairs if len(a) and a[1:] == b[1:]}
    hint = ""
    if len(counts) == 1 and all(a[1:] == b[1:] for a, b in pairs):
        ((there, here),) = counts
        hint = f"; as it seems it was trained for {there} classes, and this is made for {here}"
    return ", ".join([*named, *rest]) + hint


def _by(shape: torch.Size) -> str:
    return "x".join(map(str, shape)) or "a single number"


def _likely_prefix(state: State, own: State) -> str:
    """What stands before most of the names that a table shares with the module, if before half of the module's."""
    needed = set(_needed(own))
    found = Counter(name.removesuffix(end) for name in state for end in _ends(name) if end in needed)
    before, count = found.most_common(1)[0] if found else ("", 0)
    return before if 2 * count >= len(needed) else ""


def _misfit(where: tuple[str, ...], state: State, own: State) -> str:
    """What a table has that the module has not, and the other way round."""
    before = _likely_prefix(state, own)
    missing = [before + name for name in _needed(own) if before + name not in state]
    more = [name for name in state if name.removeprefix(before) not in own or not name.startswith(before)]
    parts = [
        f"it holds {len(state)} tensor{'s' * (len(state) != 1)}"
        + (f" under {_shown('.'.join(where))}" if where else "")
    ]
    parts += [f"of which most fit behind {_shown(before)}"] if before else []
    parts += [f"without {_listed(missing, DIFFERING)}"] if missing else []
    parts += [f"with {_listed(more, DIFFERING)}, which the architecture has not"] if more else []
    if more and not missing:
        first = [_shown(name.partition(".")[0] + ".") for name in more]
        parts[-1] += f"; to leave them out, write drop = {list(dict.fromkeys(first))[:NAMED]} under [model]"
    return ", ".join(parts)


def _listed(names: list[Any], most: int = NAMED) -> str:
    rest = len(names) - most
    return ", ".join(map(_shown, names[:most])) + (f" and {rest} more" if rest > 0 else "")


def _shown(name: Any) -> str:
    """A key of a file as it may stand in a line."""
    plain = isinstance(name, str) and name.isprintable() and 0 < len(name) <= LONGEST
    return name if plain else repr(name)[:LONGEST]


def _checked(value: Tensor, own: Tensor, where: str) -> Tensor:
    """A tensor that can take the place of the module's own. Raises ModelError."""
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        kind = "quantized" if value.is_quantized else "without values" if value.is_meta else "sparse"
        raise ModelError(f"{where} is {kind}; expected plain float weights")
    if own.is_floating_point() and value.dtype not in FLOATS:
        raise ModelError(f"{where} is {str(value.dtype).removeprefix('torch.')}; expected float weights")
    return value


def _described(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a table with the keys {_listed(list(content))}" if content else "an empty table"
    return "None" if content is None else f"a {type(content).__name__}"
