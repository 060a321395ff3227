"""A release comes to an app's folder. Every byte is checked before anything has its final name there, and nothing that
was fetched is loaded or run."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from compress.errors import RegistryError
from compress.files import (
    cache_folder,
    cached,
    check_writable,
    identity,
    locked,
    parsed_json,
    sha256_of,
    size_of,
    to_disk,
    unwritten,
)
from compress.registry.index import Index, encoded, read_index
from compress.registry.names import Wanted, nearest, version_of
from compress.registry.place import Place
from compress.registry.release import STATE, read_release, sum_of, sums_of
from compress.registry.trust import Verifier, read_signature
from compress.release.manifest import FILE as MANIFEST
from compress.release.manifest import SIGNATURE, entries, parsed_manifest

WITH_A_FORMAT = ("labels", "golden", "card")
"""Roles of what belongs to a model in an app; the report and its pictures do not."""
_SCHEMA = 1
_MOST_STATE = 1 << 20
_ATTEMPTS = 3


@dataclass(frozen=True)
class Fetched:
    """`moved_bytes`: what came from the registry of the files, and not from this machine. `sha256`: of the manifest."""

    name: str
    version: str
    folder: Path
    sha256: str
    files: tuple[str, ...]
    size_bytes: int
    moved_bytes: int


@dataclass(frozen=True)
class _State:
    """What a folder holds that was fetched into it, and the highest version that came by each wish."""

    name: str = ""
    version: str = ""
    format: str | None = None
    sha256: str = ""
    files: tuple[str, ...] = ()
    highest: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": _SCHEMA,
            "name": self.name,
            "version": self.version,
            "format": self.format,
            "sha256": self.sha256,
            "files": list(self.files),
            "highest": dict(self.highest),
        }


@dataclass(frozen=True)
class _Release:
    """What is to lie in the folder: the manifest as `data`, and the entries of the other files. `sums`: of every file
    that the release has. `signature`: of them, where one is required."""

    name: str
    version: str
    data: bytes
    files: Sequence[dict[str, Any]]
    sums: Mapping[str, str]
    signature: bytes | None = None


def fetch(
    wanted: Wanted,
    place: Place,
    out: Path,
    *,
    format: str | None = None,
    sha256: str | None = None,
    allow_older: bool = False,
    require_key: Path | None = None,
) -> Fetched:
    """Fetch a release, or what belongs to one format of it, into the folder `out`, which holds that and nothing else.

    `sha256`: what the manifest must have. `require_key`: the public key whose owner must have signed it. Files that are
    here already are not fetched again. Raises a CompressError, and leaves `out` as it was, where the registry, or what
    comes from it, is not as it should be.
    """
    verifier = Verifier(require_key) if require_key else None
    out = out.resolve()
    check_writable(out)
    if out in (here := Path.cwd(), *here.parents):
        raise RegistryError(f"{out}: is replaced as a whole; name a folder of its own with --out")
    try:
        return _fetched(wanted, place, out, format, sha256, allow_older, verifier)
    except OSError as error:
        where = error.filename2 or error.filename or out
        raise RegistryError(f"{where}: {error.strerror}; name another folder with --out") from None


def _fetched(
    wanted: Wanted,
    place: Place,
    out: Path,
    format: str | None,
    sha256: str | None,
    allow_older: bool,
    verifier: Verifier | None,
) -> Fetched:
    with _alone_at(out):
        _mend(out)
        state = _read_state(out)
        if state:
            _check_own(out, state, wanted.name)
        held = _held(out, state)
        found = _pinned(wanted, out, state, format)
        if found is None:
            index = read_index(place, wanted.name)
            version = index.version_for(wanted, f"{place}/{wanted.name}")
            _check_older(index, wanted, version, state, allow_older)
            found = _release(place, index, version, format)
        _check_sum(found, sha256)
        if verifier:
            found = replace(found, signature=_signature(found, place, out, verifier))
        highest = {**(state.highest if state else {}), wanted.wish: found.version}
        sums = {MANIFEST: sum_of(found.data)} | {entry["file"]: entry["sha256"] for entry in found.files}
        if found.signature is not None:
            sums[SIGNATURE] = sum_of(found.signature)
        new = _State(found.name, found.version, format, sums[MANIFEST], tuple(sums), highest)
        whole = new == state and all(held.get(name) == sha256 for name, sha256 in sums.items())
        moved = 0 if whole else _put(found, place, out, new, held)
    total = sum(entry["size_bytes"] for entry in found.files) + len(found.data)
    return Fetched(found.name, found.version, out, new.sha256, new.files, total, moved)


@contextmanager
def _alone_at(out: Path) -> Iterator[None]:
    folder = cache_folder()
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / f"fetch-{identity('fetch', 1, out=str(out))}"))
        except OSError as error:
            raise unwritten(folder, error) from None
        yield


def _staged(out: Path) -> tuple[Path, Path]:
    """Where what is fetched is put together, and where the folder before goes while it is replaced."""
    return out.with_name(f".{out.name}.fetching"), out.with_name(f".{out.name}.replaced")


def _mend(out: Path) -> None:
    """After a fetch that died: the folder is the one before or the new one."""
    stage, replaced = _staged(out)
    if replaced.exists() and not out.exists():
        os.rename(replaced, out)
    for each in (stage, replaced):
        shutil.rmtree(each, ignore_errors=True)


def fetched_files(folder: Path) -> tuple[str, ...] | None:
    """Of a release those files that were fetched into this folder; None where it was not fetched. Raises
    RegistryError."""
    state = _read_state(folder) if os.path.lexists(folder / STATE) else None
    return state.files if state else None


def _read_state(out: Path) -> _State | None:
    """None: nothing lies there. Raises RegistryError for a folder that no fetch made."""
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return None
    path = out / STATE
    try:
        if not out.is_dir() or size_of(path) > _MOST_STATE:
            raise ValueError
        return _parsed_state(parsed_json(path.read_bytes()))
    except FileNotFoundError:
        raise RegistryError(f"{out}: holds what no fetch put there; name another folder with --out") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise RegistryError(f"{path}: is damaged; remove {out}, and fetch again") from None


def _parsed_state(document: Any) -> _State:
    """Raises KeyError, TypeError or ValueError."""
    name, version, sha256, files, highest = (document[key] for key in ("name", "version", "sha256", "files", "highest"))
    form = document["format"]
    texts = [name, version, sha256, *files, *highest, *highest.values(), *([form] if form is not None else [])]
    if document["schema"] != _SCHEMA or not all(isinstance(text, str) for text in texts):
        raise ValueError
    return _State(name, version, form, sha256, tuple(files), dict(highest))


def _check_own(out: Path, state: _State, name: str) -> None:
    """The folder is replaced as a whole, so that it may hold nothing of anyone else."""
    if state.name != name:
        raise RegistryError(f"{out}: holds {state.name} {state.version}; name another folder with --out")
    other = next((path.name for path in sorted(out.iterdir()) if path.name not in (STATE, *state.files)), None)
    if other:
        raise RegistryError(f"{out / other}: is not of {name}; move it away, since fetch replaces the whole folder")


def _manifest_there(out: Path, state: _State | None) -> dict[str, Any] | None:
    """That of what was fetched before; None where it was changed since."""
    try:
        data = (out / MANIFEST).read_bytes()
    except OSError:
        return None
    if state is None or sum_of(data) != state.sha256:
        return None
    return parsed_manifest(data, str(out / MANIFEST), "fetch it again")


def _held(out: Path, state: _State | None) -> dict[str, str]:
    """The sha256 of each file that lies there now."""
    if state is None:
        return {}
    return {path.name: sha256_of(path) for path in out.iterdir() if path.is_file() and not path.is_symlink()}


def _pinned(wanted: Wanted, out: Path, state: _State | None, format: str | None) -> _Release | None:
    """What lies there, if that is the very version that is asked for, which never changes."""
    manifest = _manifest_there(out, state)
    if state is None or manifest is None or not wanted.is_version or state.version != wanted.wish:
        return None
    data = (out / MANIFEST).read_bytes()
    return _Release(state.name, state.version, data, _of_format(manifest, format), sums_of(manifest, data))


def _check_older(index: Index, wanted: Wanted, version: str, state: _State | None, allow_older: bool) -> None:
    before = state.highest.get(wanted.wish) if state and not wanted.is_version else None
    if allow_older or before is None or version_of(before) <= version_of(version):
        return
    moves = [move for move in index.history if (move.channel, move.version) == (wanted.wish, version)]
    why = f" ({moves[-1].at[:10]}: {moves[-1].reason})" if moves else ""
    what = wanted.wish or "the newest version"
    raise RegistryError(
        f"{wanted.name}: {what} is {version} now{why}, lower than the {before} that was fetched before; "
        "take it with --allow-older"
    )


def _release(place: Place, index: Index, version: str, format: str | None) -> _Release:
    manifest, data = read_release(place, index, version)
    return _Release(index.name, version, data, _of_format(manifest, format), sums_of(manifest, data))


def _of_format(manifest: dict[str, Any], format: str | None) -> list[dict[str, Any]]:
    """Raises RegistryError where there is no such file, with those that there are."""
    if "beside" not in manifest:
        raise RegistryError(
            f"{manifest.get('name')}: has a manifest of schema 1, which names no labels; publish it anew"
        )
    if format is None:
        return entries(manifest)
    models = [entry for entry in manifest["files"] if entry["format"] == format]
    if not models:
        known = [entry["format"] for entry in manifest["files"]]
        raise RegistryError(
            f"{manifest['name']} {manifest['version']}: has no {format} file{nearest(format, known, 'file')}"
        )
    return [*models, *(entry for entry in manifest["beside"] if entry["role"] in WITH_A_FORMAT)]


def _check_sum(found: _Release, sha256: str | None) -> None:
    ours = sum_of(found.data)
    if sha256 is None or sha256.lower() == ours:
        return
    of = next((entry["file"] for entry in found.files if entry["sha256"] == sha256.lower()), None)
    told = f"that is the sha256 of {of}; the" if of else "the"
    raise RegistryError(f"{found.name} {found.version}: {told} sha256 of its manifest is {ours}, not {sha256:.64}")


def _signature(found: _Release, place: Place, out: Path, verifier: Verifier) -> bytes:
    """That which is in the folder already, or else the registry's, if it is by the key. Raises RegistryError."""
    with suppress(OSError, RegistryError):
        there = (out / SIGNATURE).read_bytes()
        verifier.check(there, found.sums, str(out / SIGNATURE))
        return there
    folder = f"{found.name}/{found.version}"
    signature = read_signature(place, folder)
    if signature is None:
        raise RegistryError(f"{place}/{folder}: is not signed, and {verifier.key} is required; ask who published it")
    verifier.check(signature, found.sums, f"{place}/{folder}/{SIGNATURE}")
    return signature


def _put(found: _Release, place: Place, out: Path, state: _State, held: Mapping[str, str]) -> int:
    """Put the files together beside `out`, which then becomes that; returns the bytes that came from the registry."""
    stage, replaced = _staged(out)
    try:
        sources, moved = _sources(found, place, out, held)
        stage.mkdir(parents=True)
        for entry in found.files:
            _copy(sources[entry["file"]], stage / entry["file"], entry)
        (stage / MANIFEST).write_bytes(found.data)
        if found.signature is not None:
            (stage / SIGNATURE).write_bytes(found.signature)
        (stage / STATE).write_bytes(encoded(state.to_json()))
        to_disk(*stage.iterdir(), stage)
        if out.exists():
            os.rename(out, replaced)
        os.rename(stage, out)
        to_disk(out.parent)
    finally:
        if not out.exists() and replaced.exists():
            os.rename(replaced, out)
        for each in (stage, replaced):
            shutil.rmtree(each, ignore_errors=True)
    return moved


def _sources(found: _Release, place: Place, out: Path, held: Mapping[str, str]) -> tuple[dict[str, Path], int]:
    """Where each file lies on this machine, fetched where it did not, and how many bytes came so."""
    here = {sha256: out / name for name, sha256 in held.items()}
    sources, moved = {}, 0
    for entry in found.files:
        if entry["sha256"] in here:
            sources[entry["file"]] = here[entry["sha256"]]
            continue
        path = cache_folder() / f"file-{entry['sha256']}"
        if not path.exists() or sha256_of(path) != entry["sha256"]:
            path.unlink(missing_ok=True)
            moved += _fetch(place, f"{found.name}/{found.version}/{entry['file']}", entry, path)
        sources[entry["file"]] = path
    return sources, moved


def _fetch(place: Place, path: str, entry: dict[str, Any], to: Path) -> int:
    """Into the cache, from where a fetch before broke off; returns the bytes that came now."""
    moved = 0

    def make(partial: Path) -> None:
        nonlocal moved
        start = partial.stat().st_size if partial.exists() else 0
        _download(place, path, partial, entry["size_bytes"])
        moved = entry["size_bytes"] - (start if start < entry["size_bytes"] else 0)
        if sha256_of(partial) != entry["sha256"]:
            partial.unlink()
            raise RegistryError(
                f"{place}/{path}: is not the file that its manifest names: its sha256 differs; it was deleted"
            )

    cached(to, make, resumable=True, wanted=f" for {entry['size_bytes']:,} bytes")
    return moved


def _download(place: Place, path: str, partial: Path, size_bytes: int) -> None:
    """All of a file, in several attempts where the first ones bring a part. Raises RegistryError."""
    for attempt in range(_ATTEMPTS):
        before = partial.stat().st_size if partial.exists() else 0
        if before > size_bytes:
            partial.unlink()
        if before == size_bytes and partial.exists():
            return
        try:
            place.download(path, partial, size_bytes)
        except RegistryError:
            after = partial.stat().st_size if partial.exists() else 0
            if after > size_bytes:
                partial.unlink()
            if after > size_bytes or after <= before or attempt == _ATTEMPTS - 1:
                raise
    there = partial.stat().st_size
    if there != size_bytes:
        partial.unlink()
        raise RegistryError(f"{place}/{path}: has {there:,} bytes, not the {size_bytes:,} that its manifest states")


def _copy(source: Path, place: Path, entry: dict[str, Any]) -> None:
    """Raises RegistryError where the copy is not what it should be."""
    shutil.copyfile(source, place)
    if sha256_of(place) != entry["sha256"]:
        raise RegistryError(f"{source}: was changed while it was copied; fetch again")
