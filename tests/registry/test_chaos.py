"""Whatever happens to a publish or a fetch, and to others at the same time: what has its final name is whole, what was
published stays, and the next attempt succeeds."""

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import urllib3
from chaos import Command, cutter, folder_server, serving, store_server
from made import sum_of, write_release

from compress.registry.folder import Folder
from compress.registry.index import encoded, made_of, read_events
from compress.registry.names import version_of

SIZE = 20_000
AT_ONCE = 4
SOMEONE = {"Authorization": "AWS4-HMAC-SHA256 Credential=a/20261129/us-east-1/s3/aws4_request"}
"""Whom the store does not look at."""


@dataclass
class Trials:
    """Commands on one registry, of which many fail. `to`: where it is published to, `source`: where it is fetched from,
    `web`: where its files are read as they are. At the port `cut` connections to `port` break."""

    here: Path
    to: str
    source: str
    web: str
    port: int
    cut: int
    environment: dict[str, str]
    calls: dict[str, int] = field(default_factory=dict)
    published: set[str] = field(default_factory=set)
    count: int = 0
    failed: int = 0

    def read(self, path: str) -> bytes | None:
        answer = urllib3.request("GET", f"{self.web}/{path}", headers=SOMEONE)
        assert answer.status in (200, 404)
        return answer.data if answer.status == 200 else None

    def publish(self, version: str, *, cut: bool = False) -> Command:
        folder = self.here / f"run-{version}"
        if not folder.exists():
            write_release(folder, seed=version_of(version).minor, size=SIZE)
        return self._command(cut, "publish", str(folder), "--to", self.to, "--version", version)

    def fetch(self, wish: str, out: Path, *, cut: bool = False) -> Command:
        return self._command(cut, "fetch", f"tiny@{wish}", "--from", self.source, "--out", str(out), "--allow-older")

    def _command(self, cut: bool, *arguments: str) -> Command:
        self.count += 1

        def led(text: str) -> str:
            return text.replace(f"127.0.0.1:{self.port}", f"127.0.0.1:{self.cut}") if cut else text

        environment = {key: led(value) for key, value in self.environment.items()}
        return Command(list(map(led, arguments)), self.here / f"said-{self.count}", environment)

    def check(self) -> None:
        """What can be seen is whole, and nothing that was published is gone."""
        data = self.read("tiny/index.json")
        versions = json.loads(data)["versions"] if data else {}
        assert self.published <= set(versions)
        for version, entry in versions.items():
            manifest = self.read(f"tiny/{version}/manifest.json")
            assert sum_of(manifest) == entry["sha256"]
            stated = json.loads(manifest)
            for each in [*stated["files"], *stated["beside"]]:
                assert sum_of(self.read(f"tiny/{version}/{each['file']}")) == each["sha256"]
        for out in self.here.glob("out-*"):
            check_fetched(out)


def check_fetched(out: Path) -> None:
    state = json.loads((out / ".fetched.json").read_bytes())
    data = (out / "manifest.json").read_bytes()
    assert sum_of(data) == state["sha256"]
    manifest = json.loads(data)
    assert manifest["version"] == state["version"]
    for each in [*manifest["files"], *manifest["beside"]]:
        assert sum_of((out / each["file"]).read_bytes()) == each["sha256"]


def struck(command: Command, fault: str, chance: random.Random, calls: dict[str, int]) -> Command:
    if fault == "killed":
        return replace(command, killed=chance.randrange(1, calls[command.arguments[0]]))
    return replace(command, full=chance.randrange(SIZE)) if fault == "full" else command


def measured(trials: Trials) -> None:
    """A publish and a fetch without a fault, and how many calls to the system each makes."""
    for command in (trials.publish("1.0.0"), trials.fetch("1.0.0", trials.here / "out-0")):
        calls = trials.here / "calls"
        assert replace(command, calls=calls).run() == 0, command.said.read_text()
        trials.calls[command.arguments[0]] = int(calls.read_text())
    trials.published.add("1.0.0")


def go_through(trials: Trials, count: int, seed: int) -> None:
    """So many processes, some at once, each with a fault; then all again without one."""
    chance = random.Random(seed)
    measured(trials)
    versions = [f"1.{minor}.0" for minor in range(1, 2 + count // 2)]
    for _ in range(0, count, AT_ONCE):
        pending = [each for each in versions if each not in trials.published]
        running = {}
        for place in range(AT_ONCE):
            fault = chance.choice(["killed", "killed", "cut", "full"])
            if pending and chance.random() < 0.6:
                version = pending.pop(0)
                command = trials.publish(version, cut=fault == "cut")
            else:
                version = None
                wish = chance.choice(["^1.0", "1.0.0"])
                command = trials.fetch(wish, trials.here / f"out-{place}", cut=fault == "cut")
            command = struck(command, fault, chance, trials.calls)
            spared = fault == "cut" and version is not None and "://" not in trials.to
            running[place] = (command, version, spared, command.start())
        for command, version, spared, process in running.values():
            process.join()
            said = command.said.read_text() if process.exitcode != -9 else ""
            assert process.exitcode in ((0,) if spared else (0, 2, -9)), said
            assert process.exitcode != 2 or said.count("\n") == 1, said
            trials.failed += process.exitcode != 0
            if version and process.exitcode == 0:
                trials.published.add(version)
        trials.check()
    print(f"{trials.failed} of {count} were stopped; calls to be killed at: {trials.calls}")
    for version in versions:
        command = trials.publish(version)
        assert command.run() == 0, command.said.read_text()
        trials.published.add(version)
    for place in range(AT_ONCE):
        command = trials.fetch("^1.0", trials.here / f"out-{place}")
        assert command.run() == 0, command.said.read_text()
    trials.check()


@pytest.fixture
def folder(tmp_path) -> Iterator[Trials]:
    registry = tmp_path / "registry"
    registry.mkdir()
    with ExitStack() as stack:
        port = stack.enter_context(serving(folder_server, registry))
        cut = stack.enter_context(serving(cutter, port, 0, SIZE))
        web = f"http://127.0.0.1:{port}"
        yield Trials(tmp_path, str(registry), web, web, port, cut, {"COMPRESS_CACHE": str(tmp_path / "cache")})
    place = Folder(registry)
    found = made_of("tiny", read_events(place, "tiny")[1])
    assert encoded(found.to_json()) == (registry / "tiny" / "index.json").read_bytes()
    assert not list(registry.rglob("*.partial"))


@pytest.fixture
def store(tmp_path) -> Iterator[Trials]:
    for library in ("moto", "flask", "s3fs"):
        pytest.importorskip(library)
    with ExitStack() as stack:
        port = stack.enter_context(serving(store_server))
        cut = stack.enter_context(serving(cutter, port, 0, 2 * SIZE))
        web = f"http://127.0.0.1:{port}"
        assert urllib3.request("PUT", f"{web}/models").status == 200
        environment = {
            "COMPRESS_CACHE": str(tmp_path / "cache"),
            "AWS_ENDPOINT_URL": web,
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        yield Trials(tmp_path, "s3://models", "s3://models", f"{web}/models", port, cut, environment)


def test_a_folder_survives_what_goes_wrong(folder):
    go_through(folder, 4, seed=0)


@pytest.mark.slow
def test_a_folder_survives_a_hundred_faults(folder):
    go_through(folder, 100, seed=1)


@pytest.mark.slow
def test_a_store_is_published_to_and_fetched_from(store):
    measured(store)
    store.check()


@pytest.mark.slow
def test_a_store_survives_a_hundred_faults(store):
    go_through(store, 100, seed=1)
