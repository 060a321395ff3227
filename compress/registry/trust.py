"""Signatures in the form of OpenSSF's Model Signing, by a key of one's own and offline. One is of the sha256 of the
manifest and of every file that it names."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from compress.errors import RegistryError
from compress.files import size_of
from compress.registry.place import Place
from compress.registry.release import STATE
from compress.release.manifest import SIGNATURE

_MOST = 1 << 20
"""Bytes that a key or a signature has at most."""
_MAKE = {
    "private": "openssl ecparam -name prime256v1 -genkey -noout -out KEY.pem",
    "public": "openssl ec -in KEY.pem -pubout -out PUB.pem",
}
_NOT_USED = "nothing of it is used"


class Verifier:
    """Says whether a signature is by the owner of a public key."""

    def __init__(self, key: Path):
        """Raises RegistryError for a file that holds no such key."""
        from_key = _library("verifying").use_elliptic_key_verifier
        self.key, self._config = key, _loaded(key, lambda: from_key(public_key=key), "public")

    def check(self, signature: bytes, sums: Mapping[str, str], where: str) -> None:
        """Raises RegistryError for one by anyone else, and for one of other files than those with the sha256 `sums`."""
        stated = _Stated(sums)
        with _scratch() as folder, redirect_stdout(io.StringIO()):
            path = folder / SIGNATURE
            path.write_bytes(signature)
            try:
                self._config.set_hashing_config(stated).verify(folder, path)
            except Exception:  # whatever a hostile one makes of the library
                what = f"is by {self.key}, but of other files" if stated.read else f"is no signature by {self.key}"
                raise RegistryError(f"{where}: {what}; {_NOT_USED}") from None


class Signer:
    """Signs with a private key."""

    def __init__(self, key: Path):
        """Raises RegistryError for a file that holds no such key."""
        from_key = _library("signing").use_elliptic_key_signer
        self.key, self._config = key, _loaded(key, lambda: from_key(private_key=key), "private")

    def sign(self, name: str, sums: Mapping[str, str]) -> bytes:
        with _scratch() as folder:
            path = folder / SIGNATURE
            self._config.set_hashing_config(_Stated(sums)).sign(name, path)
            return path.read_bytes()

    def verifier(self) -> Verifier:
        """That of the public key that belongs to it."""
        from cryptography.hazmat.primitives import serialization as form

        key = form.load_pem_private_key(self.key.read_bytes(), None).public_key()
        with _scratch() as folder:
            path = folder / self.key.name
            path.write_bytes(key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
            verifier = Verifier(path)
        verifier.key = self.key
        return verifier


def read_signature(place: Place, folder: str) -> bytes | None:
    """That of a published version; None: it has none. Raises RegistryError."""
    return place.read(f"{folder}/{SIGNATURE}", _MOST)


class _Stated:
    """Takes the place of the library's own hashing: the files are those with the sums that the manifest states, to
    which each is held when it is read. `read`: whether the library asked, which it does for a signature by the key."""

    def __init__(self, sums: Mapping[str, str]):
        self.sums, self.read = sums, False

    def add_ignored_paths(self, **_: Any) -> None:
        """Nothing is left out."""

    def hash(self, model_path: str | Path, *, files_to_hash: object = None) -> Any:
        from model_signing._hashing.hashing import Digest
        from model_signing.manifest import FileManifestItem, Manifest, SerializationType

        self.read = True
        form = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SIGNATURE, STATE]}
        items = [
            FileManifestItem(path=PurePosixPath(name), digest=Digest("sha256", bytes.fromhex(sha256)))
            for name, sha256 in self.sums.items()
        ]
        return Manifest(str(model_path), items, SerializationType.from_args(form))


@contextmanager
def _scratch() -> Iterator[Path]:
    """The library reads and writes files."""
    try:
        with TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        raise RegistryError(f"{error.filename or 'TMPDIR'}: {error.strerror}; name another folder in TMPDIR") from None


def _library(part: str) -> Any:
    try:
        from model_signing import signing, verifying
    except ImportError:
        raise RegistryError("signatures need a library: pip install 'compress-mobile[sign]'") from None
    return {"signing": signing, "verifying": verifying}[part].Config()


def _loaded(path: Path, load: Callable[[], Any], kind: str) -> Any:
    try:
        if size_of(path) > _MOST:
            raise ValueError
        return load()
    except OSError as error:
        raise RegistryError(f"{path}: {error.strerror}; name a file with a {kind} key") from None
    except TypeError:
        raise RegistryError(f"{path}: is encrypted; name a key without a password") from None
    except Exception:
        what = f"holds no {kind} key of the curve P-256, P-384 or P-521 in PEM"
        raise RegistryError(f"{path}: {what}; make one: {_MAKE[kind]}") from None
