"""A registry by its folder or URL."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from compress.errors import RegistryError
from compress.registry.folder import Folder
from compress.registry.place import Place, Writable
from compress.registry.remote import EXTRAS, Remote
from compress.registry.web import SCHEMES, Web, without_password


def open_place(text: str) -> Place:
    """A folder, or a URL. Raises RegistryError for a URL that is not opened here, or needs a library."""
    scheme, _, rest = text.partition("://")
    if not rest and "://" not in text:
        return Folder(Path(text))
    if scheme == "file":
        return Folder(Path(unquote(urlsplit(text).path)))
    if scheme not in (*SCHEMES, *EXTRAS):
        known = ", ".join(f"{each}://" for each in (*SCHEMES, *dict.fromkeys(EXTRAS.values())))
        raise RegistryError(f"{without_password(text)}: no registry is opened by {scheme[:20]}://; there are {known}")
    return Web(text) if scheme in SCHEMES else Remote(text)


def open_to_write(text: str) -> Writable:
    """Raises RegistryError, also for what can only be read."""
    place = open_place(text)
    if not isinstance(place, Writable):
        raise RegistryError(f"{place}: is to read from; publish to a folder, s3://, gs://, az:// or hf://")
    return place
