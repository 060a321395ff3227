import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made import sum_of, write_release

from compress.cli import main
from compress.registry.folder import Folder
from compress.registry.index import encoded, made_of, read_events, read_index


def index_of(registry: Path, name: str = "tiny") -> dict:
    return json.loads((registry / name / "index.json").read_text())


def manifest_of(registry: Path, version: str) -> dict:
    return json.loads((registry / "tiny" / version / "manifest.json").read_text())


def test_a_version_is_the_folder_as_it_is(tmp_path, registry):
    run = write_release(tmp_path / "run")
    (run / "checkpoints").mkdir()
    (run / "notes.txt").write_text("not of the release")
    assert main(["publish", str(run), "--to", str(registry), "--channel", "stable"]) == 0
    there = registry / "tiny" / "1.0.0"
    assert {path.name for path in there.iterdir()} == {
        *("manifest.json", "model.onnx", "model.tflite", "labels.txt", "golden.npz", "report.json", "report.html")
    }
    assert all((there / path.name).read_bytes() == (run / path.name).read_bytes() for path in there.iterdir())
    index = index_of(registry)
    data = (there / "manifest.json").read_bytes()
    assert index["versions"]["1.0.0"]["sha256"] == sum_of(data)
    assert index["versions"]["1.0.0"]["size_bytes"] == len(data)
    assert index["channels"] == {"stable": "1.0.0"}
    assert [(move["channel"], move["version"], move["reason"]) for move in index["history"]] == [
        ("stable", "1.0.0", "published")
    ]


def test_publishing_the_same_again_changes_nothing_and_mends_a_lost_index(tmp_path, registry, publish):
    assert publish("1.0.0") == 0
    before = index_of(registry)
    (registry / "tiny" / "index.json").unlink()
    assert publish("1.0.0") == 0
    assert index_of(registry) == before


def test_other_bytes_under_the_same_version_are_refused_and_the_next_number_is_named(
    tmp_path, registry, publish, refused
):
    publish("1.0.0", "--channel", "stable")
    before = {path: path.read_bytes() for path in registry.rglob("*") if path.is_file()}
    other = write_release(tmp_path / "other", seed=1)
    said = refused("publish", other, "--to", registry)
    assert "has 1.0.0 with other bytes" in said
    assert said.endswith("--version 1.0.1")
    assert {path: path.read_bytes() for path in registry.rglob("*") if path.is_file()} == before
    assert json.loads((other / "manifest.json").read_text())["replaces"] is None


def test_a_later_version_says_what_it_replaces_and_what_it_fits(registry, publish):
    publish("1.0.0")
    publish("1.1.0", seed=1)
    publish("1.1.1", seed=2)
    assert manifest_of(registry, "1.1.1")["replaces"] == "1.1.0"
    assert manifest_of(registry, "1.1.1")["compatible_with"] == ["1.0.0", "1.1.0"]
    publish("2.0.0", seed=3, classes=["object", "background"])
    assert manifest_of(registry, "2.0.0")["replaces"] == "1.1.1"
    assert manifest_of(registry, "2.0.0")["compatible_with"] == []
    publish("1.1.2", seed=4)
    assert manifest_of(registry, "1.1.2")["replaces"] == "1.1.1"
    assert list(index_of(registry)["versions"]) == ["1.0.0", "1.1.0", "1.1.1", "1.1.2", "2.0.0"]


@pytest.mark.parametrize("version", ["1.0.1", "1.1.0"])
def test_a_change_that_breaks_apps_needs_a_number_that_says_so(tmp_path, registry, publish, refused, version):
    publish("1.0.0")
    broken = write_release(tmp_path / "broken", seed=1, classes=["object", "background"])
    said = refused("publish", broken, "--to", registry, "--version", version)
    assert "labels: background, object became object, background" in said
    assert said.endswith("--version 2.0.0")
    assert main(["publish", str(broken), "--to", str(registry), "--version", "2.0.0"]) == 0


def test_before_1_0_a_minor_number_may_break_apps(tmp_path, registry, publish, refused):
    publish("0.1.0")
    broken = write_release(tmp_path / "broken", seed=1, classes=["object", "background"])
    assert refused("publish", broken, "--to", registry, "--version", "0.1.1").endswith("--version 0.2.0")
    assert main(["publish", str(broken), "--to", str(registry), "--version", "0.2.0"]) == 0


def test_a_run_that_failed_is_published_with_a_reason_alone_which_is_recorded(tmp_path, registry, refused):
    failed = {"passed": False, "checks": ["onnx size 9 of 10: within budget", "tflite size 11 of 10: over budget"]}
    run = write_release(tmp_path / "run", verdict=failed)
    said = refused("publish", run, "--to", registry)
    assert "tflite size 11 of 10: over budget" in said
    assert "--force" in refused("publish", run, "--to", registry, "--force", " ")
    assert not registry.exists()
    assert main(["publish", str(run), "--to", str(registry), "--force", "for the demo"]) == 0
    assert index_of(registry)["versions"]["1.0.0"]["forced"] == "for the demo"


def test_files_that_are_the_same_are_stored_once(tmp_path, registry, publish):
    publish("1.0.0")
    publish("1.0.1", description="says more")
    first, second = (registry / "tiny" / version / "model.tflite" for version in ("1.0.0", "1.0.1"))
    assert first.stat().st_ino == second.stat().st_ino
    assert manifest_of(registry, "1.0.1")["description"] == "says more"


def test_a_channel_goes_back_by_a_command_of_its_own_which_is_recorded(registry, publish, refused, tmp_path, capsys):
    publish("1.0.0", "--channel", "stable")
    publish("1.1.0", "--channel", "stable", seed=1)
    publish("1.0.1", seed=2)
    old = write_release(tmp_path / "run-1.0.1", seed=2)
    said = refused("publish", old, "--to", registry, "--version", "1.0.1", "--channel", "stable")
    assert "stable is 1.1.0 already" in said
    assert "compress channel tiny stable 1.0.1" in said
    assert "no version 1.1.2; did you mean 1.1.0?" in refused(
        "channel", "tiny", "stable", "1.1.2", "--to", registry, "--reason", "none"
    )
    assert main(["channel", "tiny", "stable", "1.0.0", "--to", str(registry), "--reason", "thin objects"]) == 0
    assert "stable is 1.0.0 now, was 1.1.0" in capsys.readouterr().out
    index = index_of(registry)
    assert index["channels"] == {"stable": "1.0.0"}
    assert index["history"][-1]["reason"] == "thin objects"


def test_the_index_is_what_the_log_says(registry, publish):
    publish("1.0.0", "--channel", "beta")
    publish("1.10.0", "--channel", "stable", seed=1)
    publish("1.9.0", seed=2)
    place = Folder(registry)
    index = made_of("tiny", read_events(place, "tiny")[1])
    assert list(index.releases) == ["1.0.0", "1.9.0", "1.10.0"]
    assert index == read_index(place, "tiny")
    assert encoded(index.to_json()) == (registry / "tiny" / "index.json").read_bytes()


def test_what_a_publish_that_died_left_is_not_seen_and_does_not_stop_the_next(registry, publish, capsys):
    publish("1.0.0")
    half = registry / "tiny" / ".1.1.0.partial"
    half.mkdir()
    (half / "model.onnx").write_bytes(b"half")
    (half / "manifest.json.5f0c1d2e.partial").write_bytes(b"half")
    capsys.readouterr()
    assert main(["list", "tiny", "--from", str(registry)]) == 0
    assert "1.1.0" not in capsys.readouterr().out
    assert publish("1.1.0", seed=1) == 0
    assert not half.exists()
    assert list(index_of(registry)["versions"]) == ["1.0.0", "1.1.0"]


def test_a_version_whose_index_was_not_reached_is_published_by_the_next_attempt(registry, publish):
    publish("1.0.0")
    (log,) = (registry / "tiny" / "log").iterdir()
    log.unlink()
    (registry / "tiny" / "index.json").unlink()
    assert publish("1.0.0") == 0
    assert list(index_of(registry)["versions"]) == ["1.0.0"]


def test_publishers_at_once_end_with_all_versions(tmp_path, registry):
    command = [sys.executable, "-m", "compress", "publish", "--to", str(registry), "--channel", "stable"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = []
    for seed in range(4):
        run = write_release(tmp_path / f"run-{seed}", seed=seed)
        version = f"{seed + 1}.0.0" if seed < 3 else "3.0.0"  # two are of one version
        running.append(
            subprocess.Popen(
                [*command, str(run), "--version", version], stderr=subprocess.PIPE, text=True, env=environment
            )
        )
    errors = [process.communicate()[1] for process in running]
    codes = [process.returncode for process in running]
    published = set(index_of(registry)["versions"])
    for seed, (code, error) in enumerate(zip(codes, errors)):
        assert code == 0 or "already" in error or "other bytes" in error, error
        assert code == 2 or f"{min(seed + 1, 3)}.0.0" in published
    assert sorted(codes[2:]) == [0, 2] or codes[2:] == [2, 2]
    assert all((registry / "tiny" / version / "model.onnx").is_file() for version in published)


@pytest.mark.parametrize("name", ["../evil", "Tiny", "a b", "a..b", "", "a-", "a/b", ".hidden"])
def test_a_name_that_is_no_folder_anywhere_is_refused(tmp_path, registry, refused, name):
    run = write_release(tmp_path / "run", name=name)
    assert "lower-case letters and digits are expected" in refused("publish", run, "--to", registry)
    assert "lower-case letters and digits are expected" in refused("fetch", name, "--from", registry)
    assert not registry.exists()


@pytest.mark.parametrize("version", ["1.0", "v1.0.0", "latest", "1.0.0.0", "01.0.0", "1.0.0/..", "9" * 200])
def test_a_version_that_is_no_semantic_one_is_refused(tmp_path, registry, refused, version):
    run = write_release(tmp_path / "run")
    assert "is no semantic version" in refused("publish", run, "--to", registry, "--version", version)
    assert not registry.exists()


def test_a_folder_that_is_not_as_it_was_measured_is_refused(tmp_path, registry, refused):
    run = write_release(tmp_path / "run")
    (run / "labels.txt").write_text("object\nbackground\n")
    assert "its sha256 differs" in refused("publish", run, "--to", registry)
    (run / "labels.txt").unlink()
    assert "is missing" in refused("publish", run, "--to", registry)
    (run / "kept.txt").write_text("background\nobject\n")
    (run / "labels.txt").symlink_to(run / "kept.txt")
    assert "is a link" in refused("publish", run, "--to", registry)
    assert not registry.exists()


def test_a_registry_that_cannot_be_written_is_one_line(tmp_path, registry, refused):
    run = write_release(tmp_path / "run")
    registry.write_text("a file")
    assert str(registry) in refused("publish", run, "--to", registry)
    assert "to read from" in refused("publish", run, "--to", "http://127.0.0.1:9/models")
    assert "no registry is opened by ftp://" in refused("publish", run, "--to", "ftp://somewhere/models")
