import json
from pathlib import Path

import pytest
from made import write_release

from compress.cli import main
from compress.registry.diff import compare


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


@pytest.fixture
def release(tmp_path) -> dict:
    return manifest(write_release(tmp_path / "run"))


def changed(release: dict, *path, to) -> dict:
    """A copy in which one value is another."""
    copy = json.loads(json.dumps(release))
    inside = copy
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = to
    return copy


@pytest.mark.parametrize(
    ("path", "to", "reason"),
    [
        (("input", "height"), 16, "input height: 8 became 16"),
        (("input", "colours"), "BGR", "input colours: RGB became BGR"),
        (("input", "resize"), "nearest", "input resize: bilinear became nearest"),
        (("output", "decision"), "threshold", "output decision: argmax became threshold"),
        (("classes",), ["object", "background"], "labels: background, object became object, background"),
        (("multilabel",), True, "labels: a pixel can have several of them in one of both alone"),
        (("files", 0, "input", "name"), "pixels", "onnx input name: image became pixels"),
        (("files", 1, "input", "dtype"), "float32", "tflite input dtype: uint8 became float32"),
        (("files", 1, "input", "mean"), [1, 2, 3], "tflite input mean: – became 1, 2, 3"),
        (("files", 1, "output", "scale"), 0.5, "tflite output scale: 0.00390625 became 0.5"),
        (
            ("files", 0, "runtime", "oldest"),
            "1.16.0",
            "onnx runtime: 1.16.0 is the oldest that reads it, where 1.6.0 was",
        ),
    ],
)
def test_what_an_app_relies_on_breaks_it(release, path, to, reason):
    assert compare(release, changed(release, *path, to=to)).breaking == (reason,)


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("version",), "1.0.1"),
        (("description",), "finds it better"),
        (("files", 1, "sha256"), "0" * 64),
        (("files", 1, "size_bytes"), 4_000),
        (("files", 0, "runtime", "oldest"), "1.5.0"),
        (("palette",), ["#000000", "#ffffff"]),
    ],
)
def test_what_it_does_not_rely_on_does_not(release, path, to):
    assert compare(release, changed(release, *path, to=to)).verdict == "drop-in"


def test_a_format_that_is_gone_breaks_and_one_more_does_not(release):
    without = release | {"files": release["files"][:1]}
    assert compare(release, without).breaking == ("tflite: there is no such file any more",)
    assert compare(without, release).breaking == ()


def measured(iou: float, p50_ms: float, **more) -> dict:
    figures = {
        "latency": {"p50_ms": p50_ms},
        "iou": {"mean": iou, "low": iou - 0.02, "high": iou + 0.02},
    }
    return {"images_sha256": "a", "reference": "labels", "cpu": "x", "cores": 2, "of": {"onnx": figures}} | more


def test_figures_stand_beside_each_other_in_a_table_of_markdown(tmp_path, capsys):
    before = write_release(tmp_path / "a", measurements=measured(0.9, 20.0))
    after = write_release(tmp_path / "b", size=4_000, version="1.1.0", measurements=measured(0.88, 10.0))
    assert main(["diff", str(before), str(after)]) == 0
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
        for line in capsys.readouterr().out.splitlines()
        if len(cells := line.split("|")) > 2
    }
    assert rows[""] == ["tiny 1.0.0", "tiny 1.1.0", ""]
    assert rows["onnx bytes"] == ["5,000", "4,000", "-20.0 %"]
    assert rows["onnx latency p50"] == ["20.0 ms", "10.0 ms", "-50.0 %"]
    assert rows["onnx IoU"] == ["0.900 [0.880, 0.920]", "0.880 [0.860, 0.900]", "-0.020"]
    assert rows["labels"] == ["background, object", "background, object", ""]


def test_what_cannot_be_compared_is_not(tmp_path, capsys):
    before = write_release(tmp_path / "a", measurements=measured(0.9, 20.0))
    after = write_release(tmp_path / "b", measurements=measured(0.8, 10.0, images_sha256="b", cpu="y"))
    main(["diff", str(before), str(after)])
    out = capsys.readouterr().out
    assert "-0.100" not in out
    assert "-50.0 %" not in out
    assert "different machines" in out
    assert "different images" in out


def test_versions_of_a_registry_and_folders_can_be_compared(publish, registry, tmp_path, capsys, refused):
    publish("1.0.0")
    publish("2.0.0", seed=1, classes=["object", "background"])
    capsys.readouterr()
    assert main(["diff", "tiny@1.0.0", "tiny@2.0.0", "--from", str(registry)]) == 1
    assert "**breaking** for an app that has tiny 1.0.0" in capsys.readouterr().out
    assert main(["diff", "tiny@2.0.0", str(tmp_path / "run-2.0.0"), "--from", str(registry)]) == 0
    assert "no such folder" in refused("diff", "tiny@1.0.0", "tiny@2.0.0")


def test_a_manifest_of_schema_1_is_compared_by_what_its_files_state(tmp_path, release, refused):
    old = {"schema": 1, "name": "tiny", "version": "0.9.0", "classes": release["classes"], "files": release["files"]}
    difference = compare(old, json.loads(json.dumps(old)) | {"version": "0.9.1"})
    assert difference.verdict == "drop-in"
    folder = write_release(tmp_path / "bare")
    (folder / "report.json").unlink()
    bare = old | {"files": [{"format": "onnx", "file": "model.onnx", "sha256": "0" * 64}]}
    (folder / "manifest.json").write_text(json.dumps(bare))
    assert "states no shape and layout" in refused("diff", folder, folder)
