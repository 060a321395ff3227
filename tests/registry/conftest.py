"""Places of each test's own, what is called on them, and a server."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made import Server, write_release

from compress.cli import main


@pytest.fixture(autouse=True)
def _places(tmp_path, monkeypatch):
    """A cache and a current folder of this test's own."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def registry(tmp_path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def publish(tmp_path, registry) -> Callable[..., int]:
    """publish(version, *flags, seed, ...): of a release that is made for it."""

    def call(version: str, *flags: str, **made: Any) -> int:
        folder = write_release(tmp_path / f"run-{version}", **made)
        return main(["publish", str(folder), "--to", str(registry), "--version", version, *flags])

    return call


@pytest.fixture
def refused(capsys) -> Callable[..., str]:
    """The one line with which a command ends that exits with 2."""

    def call(*arguments: object) -> str:
        capsys.readouterr()
        assert main(list(map(str, arguments))) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("compress: ")
        assert err.count("\n") == 1, err
        return err.removeprefix("compress: ").rstrip()

    return call


@pytest.fixture
def server(registry):
    """Of the registry, which may be published to meanwhile."""
    found = Server(registry)
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.over.set()
    found.shutdown()
    thread.join()
    found.server_close()
