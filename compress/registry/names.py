"""Names, versions and channels, and what a user asks for with them."""

import re
from dataclasses import dataclass

from semantic_version import NpmSpec, Version

from compress.errors import RegistryError
from compress.terminal.parser import meant

_LONGEST = 100
_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_CHANNEL = re.compile(r"[a-z]+([-_][a-z0-9]+)*")


def check_name(name: str) -> str:
    """The name, if it can be that of a folder on any server. Raises RegistryError."""
    if len(name) > _LONGEST or not _NAME.fullmatch(name):
        rule = f"lower-case letters and digits are expected, with single -, _ or . between them, {_LONGEST} at most"
        raise RegistryError(f"name {name!r:.60}: {rule}{_proposed(name)}")
    return name


def _proposed(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_LONGEST]
    return f"; {plain} would do" if plain else ""


def check_channel(channel: str) -> str:
    """Raises RegistryError."""
    if len(channel) > _LONGEST or not _CHANNEL.fullmatch(channel):
        raise RegistryError(f"channel {channel!r:.60}: lower-case letters are expected, such as stable or beta")
    return channel


def version_of(text: str) -> Version:
    """Raises RegistryError for what is no semantic version."""
    try:
        return Version(text[: _LONGEST + 1] if len(text) <= _LONGEST else "")
    except ValueError:
        raise RegistryError(f"version {text!r:.60}: is no semantic version, such as 1.2.0 or 2.0.0-rc.1") from None


def stays_compatible(base: Version, later: Version) -> bool:
    """Whether `later` is among what ^`base` asks for, but for what stands behind a hyphen."""
    return bool(later.truncate() in NpmSpec(f"^{base.truncate()}"))


def next_version(base: Version, *, breaking: bool) -> Version:
    """The lowest number after `base`, for a change that breaks apps or one that does not."""
    if not breaking:
        return base.truncate().next_patch()
    return base.truncate().next_minor() if base.major == 0 else base.truncate().next_major()


@dataclass(frozen=True)
class Wanted:
    """NAME, NAME@1.2.0, NAME@^1.2 or NAME@stable. `wish`: what follows the name, empty for the newest version."""

    name: str
    wish: str = ""

    @classmethod
    def parse(cls, text: str) -> "Wanted":
        """Raises RegistryError."""
        name, at, wish = text.partition("@")
        wanted = cls(check_name(name), wish)
        if at and not wish:
            raise RegistryError(f"{text!r:.60}: a version, a range such as ^1.2, or a channel is expected behind @")
        if wish and wish[0].isdigit():
            version_of(wish)
        elif wish.startswith("^"):
            wanted.range  # noqa: B018
        elif wish:
            check_channel(wish)
        return wanted

    @property
    def is_version(self) -> bool:
        return self.wish[:1].isdigit()

    @property
    def is_channel(self) -> bool:
        return self.wish[:1].isalpha()

    @property
    def range(self) -> NpmSpec:
        """What may be taken where it is a range, or the newest. Raises RegistryError."""
        try:
            return NpmSpec(self.wish or "*")
        except ValueError:
            raise RegistryError(f"{self.wish!r:.60}: is no range of versions, such as ^1.2") from None


def nearest(word: str, known: list[str], what: str) -> str:
    """ "; did you mean ...?", or what there is."""
    return meant(word, known) or (f"; there is {', '.join(known[-5:])}" if known else f"; there is no {what} at all")
