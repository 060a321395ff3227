"""index.json of a name: its versions and channels. It is made of the log, in which every publish and every move of a
channel has a file of its own, so that it can be made anew at any time."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from compress.errors import RegistryError
from compress.files import parsed_json
from compress.registry.names import Wanted, nearest, version_of
from compress.registry.place import Place

FILE = "index.json"
LOG = "log"
MOST_JSON = 16 * 2**20
"""Bytes that an index or a manifest has at most."""
_SCHEMA = 1


@dataclass(frozen=True)
class Release:
    """A published version. `sha256` and `size_bytes`: of its manifest. `forced`: why it was published although its
    verdict failed."""

    sha256: str
    size_bytes: int
    published: str
    forced: str | None = None

    def to_json(self) -> dict[str, Any]:
        document = {"sha256": self.sha256, "size_bytes": self.size_bytes, "published": self.published}
        return document | ({"forced": self.forced} if self.forced else {})


@dataclass(frozen=True)
class Move:
    """A channel that was set to a version."""

    at: str
    channel: str
    version: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"at": self.at, "channel": self.channel, "version": self.version, "reason": self.reason}


@dataclass(frozen=True)
class Event:
    """One file of the log: a version that was published, a channel that was moved, or both."""

    at: str
    version: str
    release: Release | None = None
    move: Move | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": _SCHEMA,
            "at": self.at,
            "version": self.version,
            "release": self.release.to_json() if self.release else None,
            "move": self.move.to_json() if self.move else None,
        }


@dataclass(frozen=True)
class Index:
    """`releases` by version, the lowest first; `channels`: the version of each; `history`: how they came there."""

    name: str
    releases: Mapping[str, Release] = field(default_factory=dict)
    history: tuple[Move, ...] = ()

    @property
    def channels(self) -> dict[str, str]:
        return {move.channel: move.version for move in self.history}

    @property
    def newest(self) -> str | None:
        """The highest version, one that is no pre-release where there is such."""
        finished = [version for version in self.releases if not version_of(version).prerelease]
        return next(reversed(finished or list(self.releases)), None)

    def below(self, version: str) -> str | None:
        """The highest version that is lower than this one."""
        return next((each for each in reversed(list(self.releases)) if version_of(each) < version_of(version)), None)

    def version_for(self, wanted: Wanted, where: str) -> str:
        """Raises RegistryError, with what is near, where there is no such version or channel."""
        known = list(self.releases)
        if wanted.is_version:
            if wanted.wish not in self.releases:
                raise RegistryError(f"{where}: has no version {wanted.wish}{nearest(wanted.wish, known, 'version')}")
            return wanted.wish
        if wanted.is_channel:
            if wanted.wish not in self.channels:
                others = nearest(wanted.wish, sorted(self.channels), "channel")
                raise RegistryError(f"{where}: has no channel {wanted.wish}{others}")
            return self.channels[wanted.wish]
        found = self.newest if not wanted.wish else _highest(wanted, known)
        if found is None:
            raise RegistryError(f"{where}: no version is {wanted.wish or 'there'}{nearest('', known, 'version')}")
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": _SCHEMA,
            "name": self.name,
            "versions": {version: release.to_json() for version, release in self.releases.items()},
            "channels": self.channels,
            "history": [move.to_json() for move in self.history],
        }


def _highest(wanted: Wanted, known: list[str]) -> str | None:
    return next((version for version in reversed(known) if version_of(version) in wanted.range), None)


def encoded(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def made_of(name: str, events: Iterable[Event]) -> Index:
    """The index of what happened, in this order. A version that is published again stays what it was."""
    releases: dict[str, Release] = {}
    history = []
    for event in events:
        if event.release:
            releases.setdefault(event.version, event.release)
        if event.move and event.version in releases:
            history.append(event.move)
    return Index(name, {each: releases[each] for each in sorted(releases, key=version_of)}, tuple(history))


def read_index(place: Place, name: str) -> Index:
    """Raises RegistryError where there is none, with the nearest names, and for one that cannot be."""
    found = find_index(place, name)
    if found is None:
        names = place.names("")
        if names is None:
            raise RegistryError(f"{place}: there is no {name}, and what else is there it does not say; check the name")
        if not names:
            raise RegistryError(f"{place}: is no registry, or an empty one; name one that compress publish wrote")
        raise RegistryError(f"{place}: there is no {name}{nearest(name, sorted(names), 'name')}")
    return found


def find_index(place: Place, name: str) -> Index | None:
    """None: there is none. Raises RegistryError for one that cannot be."""
    path = f"{name}/{FILE}"
    data = place.read(path, MOST_JSON)
    return None if data is None else index_of(data, name, f"{place}/{path}")


def index_of(data: bytes, name: str, where: str) -> Index:
    """What an index.json says. Raises RegistryError."""
    return _parsed(_document(data, where), name, where)


def read_events(place: Place, name: str) -> tuple[tuple[str, ...], list[Event]]:
    """Names of the files of the log, and what they say, the oldest first. Raises RegistryError."""
    folder = f"{name}/{LOG}"
    names = tuple(sorted(each for each in place.names(folder) or () if each.endswith(".json")))
    paths = [f"{folder}/{each}" for each in names]
    texts = place.read_each(paths, MOST_JSON)
    return names, [_event(_document(text, f"{place}/{path}"), f"{place}/{path}") for path, text in texts.items()]


def _document(data: bytes, where: str) -> Any:
    try:
        return parsed_json(data)
    except ValueError as error:
        raise RegistryError(f"{where}: is no JSON: {error}") from None


def _parsed(document: Any, name: str, where: str) -> Index:
    found = _table(document, where)
    if found.get("schema") != _SCHEMA:
        raise RegistryError(f"{where}: schema {found.get('schema')!r:.40} is not the {_SCHEMA} that this version reads")
    if found.get("name") != name:
        raise RegistryError(f"{where}: says that it is of {found.get('name')!r:.60}, not of {name}")
    versions = _table(found.get("versions"), f"{where}: versions")
    releases = {version: _release(entry, f"{where}: versions.{version:.60}") for version, entry in versions.items()}
    ordered = {each: releases[each] for each in sorted(releases, key=version_of)}
    history = found.get("history")
    if not isinstance(history, list):
        raise RegistryError(f"{where}: history: a list is expected")
    index = Index(name, ordered, tuple(_move(each, f"{where}: history") for each in history))
    if found.get("channels") != index.channels or not set(index.channels.values()) <= set(releases):
        raise RegistryError(f"{where}: channels are not what its history and its versions say")
    return index


def _event(document: Any, where: str) -> Event:
    found = _table(document, where)
    release, move = found.get("release"), found.get("move")
    event = Event(
        _text(found, "at", where),
        _text(found, "version", where),
        _release(release, f"{where}: release") if release is not None else None,
        _move(move, f"{where}: move") if move is not None else None,
    )
    version_of(event.version)
    return event


def _release(document: Any, where: str) -> Release:
    found = _table(document, where)
    size_bytes, forced = found.get("size_bytes"), found.get("forced")
    if type(size_bytes) is not int or not 0 < size_bytes <= MOST_JSON:
        raise RegistryError(f"{where}: size_bytes {size_bytes!r:.40} is no size of a manifest, {MOST_JSON:,} at most")
    if not isinstance(forced, str | None):
        raise RegistryError(f"{where}: forced: text is expected")
    return Release(_text(found, "sha256", where), size_bytes, _text(found, "published", where), forced)


def _move(document: Any, where: str) -> Move:
    found = _table(document, where)
    return Move(*(_text(found, key, where) for key in ("at", "channel", "version", "reason")))


def _table(document: Any, where: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise RegistryError(f"{where}: a table is expected")
    return document


def _text(document: dict[str, Any], key: str, where: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise RegistryError(f"{where}: {key}: text is expected")
    return value
