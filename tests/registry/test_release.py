"""Releases as they were made before: how they come to today's manifest, and how a gate knows what was published."""

import json
import shutil
from pathlib import Path

import pytest
from made import write_release

from compress.cli import main
from compress.registry.release import check_as_published, of_folder

RELEASE = Path(__file__).parent.parent.parent / "export" / "u2net-1mb"


@pytest.fixture
def old(tmp_path) -> Path:
    """A committed release with the manifest that it had at first."""
    folder = tmp_path / "old"
    shutil.copytree(RELEASE, folder, ignore=shutil.ignore_patterns("checkpoints", "README.md"))
    manifest = json.loads((folder / "manifest.json").read_text())
    kept = ("name", "version", "classes", "source", "files", "tools")
    report = next(
        (each for each in manifest.get("beside", []) if each["file"] == "report.json"), manifest.get("report")
    )
    first = {"schema": 1, **{key: manifest[key] for key in kept}, "version": "1.0.0"}
    (folder / "manifest.json").write_text(json.dumps(first | {"report": {k: report[k] for k in ("file", "sha256")}}))
    return folder


def test_a_release_of_schema_1_is_published_with_what_its_report_knows(old, registry):
    models = {path: path.read_bytes() for path in old.glob("model.*")}
    assert main(["publish", str(old), "--to", str(registry), "--version", "2.0.0"]) == 0
    manifest = json.loads((old / "manifest.json").read_text())
    assert (manifest["schema"], manifest["version"], manifest["licence"]) == (2, "2.0.0", "Apache-2.0")
    assert {each["file"] for each in manifest["beside"]} >= {"labels.txt", "golden.npz", "report.json", "report.html"}
    assert {each["format"]: each["runtime"]["oldest"] for each in manifest["files"]} == {
        "onnx": "1.6.0",
        "tflite": "2.3.0",
    }
    assert manifest["measurements"]["of"]["tflite"]["iou"]["mean"] == pytest.approx(0.881, abs=5e-4)
    assert {path: path.read_bytes() for path in models} == models
    assert (registry / "u2net-1mb/2.0.0/manifest.json").read_bytes() == (old / "manifest.json").read_bytes()
    assert main(["gate", str(old)]) == 0


def test_without_its_report_it_is_refused(old, registry, refused):
    (old / "report.json").unlink()
    assert "is missing" in refused("publish", old, "--to", registry)


def test_what_is_not_published_yet_or_is_as_published_passes_and_what_was_changed_since_does_not(
    tmp_path, registry, publish, refused
):
    run = write_release(tmp_path / "run")
    check_as_published(run, str(registry))
    main(["publish", str(run), "--to", str(registry)])
    check_as_published(run, str(registry))
    changed = write_release(tmp_path / "changed", seed=1)
    with pytest.raises(Exception, match=r"is not the 1\.0\.0 that .* has, and a published version never changes"):
        check_as_published(changed, str(registry))


def test_a_gate_asks_the_registry_that_its_rules_name(old, registry, refused):
    (old / "compress.toml").write_text('registry = "../registry"\n[budget]\nlimits = ["4MB"]\n')
    assert main(["publish", str(old), "--to", str(registry)]) == 0
    assert main(["gate", str(old)]) == 0
    manifest = json.loads((old / "manifest.json").read_text()) | {"description": "another"}
    (old / "manifest.json").write_text(json.dumps(manifest))
    assert "a published version never changes" in refused("gate", old)


def test_a_folder_without_a_report_keeps_its_manifest(tmp_path):
    bare = write_release(tmp_path / "bare")
    assert of_folder(bare)["schema"] == 2


def test_a_gate_judges_what_was_fetched_of_a_release_and_misses_nothing_else(tmp_path, refused, capsys):
    source, out = RELEASE.parent / "registry", tmp_path / "app"
    assert main(["fetch", "u2net-1mb", "--from", str(source), "--format", "tflite", "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["gate", str(out), "--budget", "1200KB"]) == 0
    said = capsys.readouterr().out
    assert "tflite size" in said
    assert "onnx" not in said
    assert main(["gate", str(out), "--budget", "1MB"]) == 1
    shutil.copy(RELEASE / "model.onnx", out)
    assert "model.onnx: ships" in refused("gate", out, "--budget", "1200KB")
    (out / "model.onnx").unlink()
    (out / "model.tflite").unlink()
    assert "model.tflite: is missing" in refused("gate", out, "--budget", "1200KB")
