"""What a registry holds, in words."""

from collections.abc import Sequence
from contextlib import suppress

from compress.errors import RegistryError
from compress.registry.index import FILE, MOST_JSON, Index, index_of, read_index
from compress.registry.names import check_name
from compress.registry.place import Place


def read_all(place: Place) -> list[Index]:
    """The index of every name. Raises RegistryError, also for a server that does not say which names there are."""
    names = place.names("")
    if names is None:
        raise RegistryError(
            f"{place}: does not say which names there are; name one: compress list NAME --from REGISTRY"
        )
    paths = {f"{name}/{FILE}": name for name in sorted(filter(_is_name, names))}
    found = place.read_each(list(paths), MOST_JSON)
    if not found:
        raise RegistryError(f"{place}: is no registry, or an empty one; name one that compress publish wrote")
    return [index_of(data, paths[path], f"{place}/{path}") for path, data in found.items()]


def _is_name(name: str) -> bool:
    with suppress(RegistryError):
        return bool(check_name(name))
    return False


def describe_all(indices: Sequence[Index]) -> str:
    """A line for each name: its newest version, its channels."""
    rows = [("name", "newest", "versions", "channels")]
    for index in indices:
        channels = ", ".join(f"{channel} {version}" for channel, version in sorted(index.channels.items()))
        rows.append((index.name, index.newest or "", str(len(index.releases)), channels))
    return _table(rows)


def describe_one(place: Place, name: str) -> str:
    """A line for each version, the newest first, and how the channels came where they are. Raises RegistryError."""
    index = read_index(place, check_name(name))
    rows = [("version", "published", "channels", "sha256 of the manifest", "")]
    for version, release in reversed(list(index.releases.items())):
        channels = ", ".join(channel for channel, at in sorted(index.channels.items()) if at == version)
        forced = f"verdict failed, forced: {release.forced}" if release.forced else ""
        rows.append((version, release.published[:10], channels, release.sha256, forced))
    moves = [f"{move.at[:10]}  {move.channel} -> {move.version}: {move.reason}" for move in index.history]
    return "\n".join([_table(rows), *(["", *moves] if moves else [])])


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
