"""A run's folder becomes a version of its name. Files come first, the index last, so that a publish that dies on the
way is not seen, and can be repeated."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from compress.errors import RegistryError
from compress.files import write_whole
from compress.registry.diff import compare
from compress.registry.index import (
    FILE,
    LOG,
    MOST_JSON,
    Event,
    Index,
    Move,
    Release,
    encoded,
    made_of,
    read_events,
    read_index,
)
from compress.registry.names import check_channel, check_name, nearest, next_version, stays_compatible, version_of
from compress.registry.place import Place, Writable
from compress.registry.release import read_release, sum_of, sums_of, to_publish
from compress.registry.trust import Signer, read_signature
from compress.release.manifest import FILE as MANIFEST
from compress.release.manifest import SIGNATURE, entries, parsed_manifest
from compress.release.manifest import encoded as encoded_manifest

_PUBLISHED = "published"
_TRIES = 50
_READ_BACK = "publish it under another version"


@dataclass(frozen=True)
class Published:
    """`sha256`: of the manifest, which has those of all files. `already`: nothing had to be written but the index."""

    name: str
    version: str
    sha256: str
    files: int
    size_bytes: int
    already: bool


@dataclass(frozen=True)
class _Wish:
    version: str
    channel: str | None
    force: str | None
    at: str


@dataclass(frozen=True)
class _Plan:
    """`manifest`: as it is published, the bytes `data`. `twins`: files that the registry has already."""

    index: Index
    version: str
    manifest: dict[str, Any]
    data: bytes
    event: Event | None
    already: bool
    twins: Mapping[str, str]


def publish(
    folder: Path,
    place: Writable,
    *,
    version: str | None = None,
    channel: str | None = None,
    force: str | None = None,
    key: Path | None = None,
) -> Published:
    """Publish a run's folder under its name, and under `version` or that of its manifest, which then says so too; let
    `channel` lead there. `force`: why a run whose verdict failed is published all the same. `key`: to sign it with.

    Raises RegistryError, and writes nothing, for a version that is there with other bytes, for one that promises more
    than holds, and as the manifest's checks do.
    """
    signer = Signer(key) if key else None
    found = to_publish(folder)
    name = check_name(found["name"])
    wish = _Wish(version or found["version"], channel, force, _now())
    _plan(folder, found, place, wish)  # what is refused leaves no trace
    with place.alone(name):
        plan = _plan(folder, found, place, wish)
        if (folder / MANIFEST).read_bytes() != plan.data:
            write_whole(folder / MANIFEST, plan.data)
        if not plan.already:
            files = {entry["file"]: folder / entry["file"] for entry in entries(plan.manifest)}
            if not place.lay(f"{name}/{plan.version}", MANIFEST, plan.data, files, plan.twins):
                raise RegistryError(_taken(place, plan.index, name, plan.version))
        if signer:
            _sign(signer, place, name, plan)
        _record(place, name, plan.event)
    sizes = [entry["size_bytes"] for entry in entries(plan.manifest)]
    return Published(name, plan.version, sum_of(plan.data), len(sizes) + 1, sum(sizes) + len(plan.data), plan.already)


def move_channel(name: str, channel: str, version: str, place: Writable, reason: str) -> str | None:
    """Let a channel lead to a version that was published, higher or lower; returns the one before. Raises
    RegistryError."""
    check_name(name)
    check_channel(channel)
    if not reason.strip():
        raise RegistryError("--reason: say why the channel moves; it is recorded")
    _check_published(place, name, version)
    with place.alone(name):
        index = _check_published(place, name, version)
        at = _now()
        _record(place, name, Event(at, version, move=Move(at, channel, version, reason)))
    return index.channels.get(channel)


def _sign(signer: Signer, place: Writable, name: str, plan: _Plan) -> None:
    """A version that has a signature keeps it. Raises RegistryError where that is by another key."""
    folder, sums = f"{name}/{plan.version}", sums_of(plan.manifest, plan.data)
    where = f"{folder}/{SIGNATURE}"
    tag = place.tag(where)
    there = read_signature(place, folder)
    if there is not None:
        signer.verifier().check(there, sums, f"{place}/{where}")
    elif not place.replace(where, signer.sign(name, sums), tag):
        raise RegistryError(f"{place}/{where}: was written by another one meanwhile; publish again")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _check_published(place: Place, name: str, version: str) -> Index:
    read_index(place, name)
    index = made_of(name, read_events(place, name)[1])
    version_of(version)
    if version not in index.releases:
        raise RegistryError(
            f"{place}/{name}: has no version {version}{nearest(version, list(index.releases), 'version')}"
        )
    return index


def _plan(folder: Path, found: dict[str, Any], place: Place, wish: _Wish) -> _Plan:
    """Raises RegistryError for what is refused."""
    version, channel, force, at = wish.version, wish.channel, wish.force, wish.at
    try:
        version_of(version)
    except RegistryError as error:
        raise RegistryError(f"{error}; name one with --version") from None
    if channel is not None:
        check_channel(channel)
    name = found["name"]
    if not found["verdict"]["passed"] and not (force and force.strip()):
        failed = next((each for each in found["verdict"].get("checks", []) if not _passed(each)), "not within budget")
        raise RegistryError(f"{folder}: its verdict failed: {failed}; mend it, or publish with --force REASON")
    index = made_of(name, read_events(place, name)[1])
    there = place.read(f"{name}/{version}/{MANIFEST}", MOST_JSON)
    if there is not None:
        theirs = parsed_manifest(there, f"{place}/{name}/{version}/{MANIFEST}", _READ_BACK)
        manifest = found | {key: theirs.get(key) for key in ("version", "replaces", "compatible_with")}
        if encoded_manifest(manifest) != there:
            raise RegistryError(_taken(place, index, name, version, compare(theirs, found).breaking))
        twins: dict[str, str] = {}
    else:
        manifest, twins = _following(found, index, version, place)
    data = encoded_manifest(manifest)
    if len(data) > MOST_JSON:
        raise RegistryError(f"{folder / MANIFEST}: {len(data):,} bytes; {MOST_JSON:,} at most are published")
    forced = force if not found["verdict"]["passed"] else None
    release = None if version in index.releases else Release(sum_of(data), len(data), at, forced)
    move = _move(index, channel, version, place, at)
    event = Event(at, version, release, move) if release or move else None
    return _Plan(index, version, manifest, data, event, release is None, twins)


def _passed(check: Any) -> bool:
    return isinstance(check, str) and check.endswith(("within budget", "let pass"))


def _following(
    found: dict[str, Any], index: Index, version: str, place: Place
) -> tuple[dict[str, Any], dict[str, str]]:
    """The manifest of a new version, with what it replaces; and its files that the version before has too."""
    base = index.below(version)
    if base is None:
        return found | {"version": version, "replaces": None, "compatible_with": []}, {}
    before, _ = read_release(place, index, base)
    difference = compare(before, found)
    if difference.breaking and stays_compatible(version_of(base), version_of(version)):
        wanted = _free(index, version_of(base), breaking=True)
        raise RegistryError(
            f"{found['name']} {version}: would break apps that have {base}: {difference.breaking[0]}; "
            f"publish it with --version {wanted}"
        )
    fits = [] if difference.breaking else [*before.get("compatible_with", []), base]
    where = {(entry["sha256"], entry.get("size_bytes")): entry["file"] for entry in entries(before)}
    twins = {
        entry["file"]: f"{found['name']}/{base}/{where[key]}"
        for entry in entries(found)
        if (key := (entry["sha256"], entry["size_bytes"])) in where
    }
    return found | {"version": version, "replaces": base, "compatible_with": fits}, twins


def _taken(place: Place, index: Index, name: str, version: str, breaking: Any = ()) -> str:
    free = _free(index, version_of(version), breaking=bool(breaking))
    return (
        f"{place}/{name}: has {version} with other bytes, and a published version never changes; "
        f"publish with --version {free}"
    )


def _free(index: Index, base: Any, *, breaking: bool) -> Any:
    """The next number that is not taken."""
    version = next_version(base, breaking=breaking)
    while str(version) in index.releases:
        version = next_version(version, breaking=breaking)
    return version


def _move(index: Index, channel: str | None, version: str, place: Place, at: str) -> Move | None:
    if channel is None or index.channels.get(channel) == version:
        return None
    now = index.channels.get(channel)
    if now is not None and version_of(now) > version_of(version):
        raise RegistryError(
            f"{place}/{index.name}: {channel} is {now} already; publish without --channel, or go back with: "
            f"compress channel {index.name} {channel} {version} --to REGISTRY --reason TEXT"
        )
    return Move(at, channel, version, _PUBLISHED)


def _record(place: Writable, name: str, event: Event | None) -> None:
    """Write the event, and the index of all events. Another one that comes meanwhile is in one of both indexes, and
    whoever writes last looks again."""
    if event:
        stamp = "".join(c for c in event.at.partition("+")[0] if c.isalnum())
        place.add(f"{name}/{LOG}/{stamp}Z-{secrets.token_hex(4)}.json", encoded(event.to_json()))
    path = f"{name}/{FILE}"
    for _ in range(_TRIES):
        tag = place.tag(path)
        files, events = read_events(place, name)
        if place.replace(path, encoded(made_of(name, events).to_json()), tag) and read_events(place, name)[0] == files:
            return
    raise RegistryError(f"{place}/{path}: others write it again and again; publish again")
