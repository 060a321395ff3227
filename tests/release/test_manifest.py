import json
from pathlib import Path

import pytest

from compress.errors import ExportError
from compress.release.manifest import changed_files, read_manifest, report_sum, restate

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # the sha256 of no bytes
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of b"abc"


def document(**more) -> dict:
    texts = dict.fromkeys(("name", "version", "description", "author", "licence", "created"), "")
    tables = {key: {} for key in ("input", "output", "measurements")}
    files = [{"format": "onnx", "file": "model.onnx", "sha256": EMPTY, "size_bytes": 0}]
    beside = [{"role": "report", "file": "report.json", "sha256": EMPTY, "size_bytes": 0}]
    lists = {"files": files, "beside": beside, "compatible_with": []}
    return {"schema": 2, "replaces": None, "verdict": {"passed": True}, **texts, **tables, **lists, **more}


def written(folder: Path, **more) -> Path:
    (folder / "manifest.json").write_text(json.dumps(document(**more)))
    return folder


def test_schema_2_has_the_sum_of_every_file(tmp_path):
    manifest = read_manifest(written(tmp_path))
    assert report_sum(manifest) == EMPTY
    for name in ("model.onnx", "report.json"):
        (tmp_path / name).write_bytes(b"")
    assert changed_files(tmp_path, manifest) == []
    (tmp_path / "report.json").write_bytes(b"abc")
    assert [line.partition(": ")[0] for line in changed_files(tmp_path, manifest)] == [str(tmp_path / "report.json")]


def test_schema_1_has_that_of_the_report(tmp_path):
    files = [{"format": "onnx", "file": "model.onnx", "sha256": EMPTY}]
    old = {"schema": 1, "files": files, "report": {"file": "report.json", "sha256": ABC}}
    (tmp_path / "manifest.json").write_text(json.dumps(old))
    assert report_sum(read_manifest(tmp_path)) == ABC


def test_a_page_that_is_written_anew_is_stated_anew(tmp_path):
    page = {"role": "page", "file": "report.html", "sha256": EMPTY, "size_bytes": 0}
    written(tmp_path, beside=[page])
    (tmp_path / "report.html").write_bytes(b"abc")
    restate(tmp_path / "report.html")
    assert read_manifest(tmp_path)["beside"] == [page | {"sha256": ABC, "size_bytes": 3}]


@pytest.mark.parametrize("name", ["../a", "/a", "a/b", "a\\b", "..", ".", "", ".a", "manifest.json", "a\0"])
def test_a_name_that_is_not_of_its_folder_is_refused(tmp_path, name):
    written(tmp_path, beside=[{"role": "labels", "file": name, "sha256": EMPTY, "size_bytes": 0}])
    with pytest.raises(ExportError, match="is no file in its own folder"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"schema": 3}, "schema 3 is not 1 or 2"),
        ({"schema": True}, "schema true is not 1 or 2"),
        ({"beside": None}, "beside: each needs"),
        ({"beside": [{"role": "card", "file": "a.md"}]}, "beside: each needs"),
        ({"beside": [{"role": "a", "file": "a", "sha256": "0" * 63, "size_bytes": 0}]}, "64 hexadecimal digits"),
        ({"beside": [{"role": "a", "file": "a", "sha256": EMPTY, "size_bytes": -1}]}, "is no number of bytes"),
        ({"beside": [{"role": "a", "file": "a", "sha256": EMPTY, "size_bytes": True}]}, "is no number of bytes"),
        ({"beside": [{"role": "a", "file": "model.onnx", "sha256": EMPTY, "size_bytes": 0}]}, "the same file"),
        ({"licence": None}, "licence: text is expected"),
        ({"output": []}, "output: a table is expected"),
        ({"verdict": {"passed": "yes"}}, "verdict.passed"),
        ({"replaces": 1}, "replaces: a version or null is expected"),
        ({"compatible_with": [1]}, "compatible_with: a list of versions is expected"),
        ({"report": {"file": "report.json", "sha256": EMPTY}}, "stands under beside"),
    ],
)
def test_what_schema_2_cannot_say_is_refused(tmp_path, more, words):
    with pytest.raises(ExportError, match=words):
        read_manifest(written(tmp_path, **more))
