import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made import sum_of, write_release

from compress.cli import main
from compress.registry import place

APP = {"manifest.json", "model.tflite", "labels.txt", "golden.npz", ".fetched.json"}


def fetch(*arguments: object) -> int:
    return main(["fetch", *map(str, arguments)])


def version_in(folder: Path) -> str:
    return json.loads((folder / "manifest.json").read_text())["version"]


def edit(path: Path, **more) -> None:
    """A registry's own files cannot be written, but whoever owns them can."""
    document = json.loads(path.read_text()) | more
    path.chmod(0o644)
    path.write_text(json.dumps(document))


def restate(registry: Path, version: str) -> None:
    """Let index.json have the sum of a manifest that was edited."""
    data = (registry / "tiny" / version / "manifest.json").read_bytes()
    index = json.loads((registry / "tiny" / "index.json").read_text())
    index["versions"][version] |= {"sha256": sum_of(data), "size_bytes": len(data)}
    edit(registry / "tiny" / "index.json", **index)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    for seed, (version, *flags) in enumerate(
        [("1.0.0",), ("1.2.0", "--channel", "stable"), ("2.0.0",), ("2.1.0-rc.1",)]
    ):
        run = write_release(folder / f"run-{version}", seed)
        assert main(["publish", str(run), "--to", str(folder / "registry"), "--version", version, *flags]) == 0
    return folder / "registry"


@pytest.fixture
def four(published, registry) -> None:
    """1.0.0, 1.2.0 and 2.0.0 of tiny, and a release candidate; stable is 1.2.0."""
    shutil.copytree(published, registry)


@pytest.mark.parametrize(
    ("wanted", "version"),
    [
        ("tiny", "2.0.0"),
        ("tiny@1.0.0", "1.0.0"),
        ("tiny@^1.0", "1.2.0"),
        ("tiny@^1", "1.2.0"),
        ("tiny@^2.0.0", "2.0.0"),
        ("tiny@stable", "1.2.0"),
        ("tiny@2.1.0-rc.1", "2.1.0-rc.1"),
    ],
)
def test_what_a_name_a_range_and_a_channel_lead_to(four, registry, wanted, version):
    assert fetch(wanted, "--from", registry, "--out", "out") == 0
    assert version_in(Path("out")) == version


def test_all_files_or_those_that_an_app_needs_of_one_format(four, registry):
    assert fetch("tiny", "--from", registry) == 0
    there = registry / "tiny" / "2.0.0"
    assert {path.name for path in Path("tiny").iterdir()} == {path.name for path in there.iterdir()} | {".fetched.json"}
    assert all((Path("tiny") / path.name).read_bytes() == path.read_bytes() for path in there.iterdir())
    assert fetch("tiny", "--from", registry, "--format", "tflite", "--out", "app") == 0
    assert {path.name for path in Path("app").iterdir()} == APP


def test_over_http_a_second_fetch_moves_nothing(four, registry, server, capsys):
    assert fetch("tiny@1.2.0", "--from", server.url, "--format", "tflite") == 0
    assert "5,024 bytes fetched" in capsys.readouterr().out  # 5,000, 18 of labels, 6 of the golden input
    server.asked.clear()
    assert fetch("tiny@1.2.0", "--from", server.url, "--format", "tflite") == 0
    assert "nothing had to be fetched" in capsys.readouterr().out
    assert server.asked == []
    assert fetch("tiny@stable", "--from", server.url, "--format", "tflite", "--out", "other") == 0
    assert [path for path, _ in server.asked] == ["/tiny/index.json", "/tiny/1.2.0/manifest.json"]


def test_list_over_http_reads_what_the_server_lists(four, server, capsys):
    assert main(["list", "--from", server.url]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["tiny", "2.0.0", "4", "stable", "1.2.0"]
    assert main(["list", "tiny", "--from", server.url]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:5]] == [
        *("2.1.0-rc.1", "2.0.0", "1.2.0", "1.0.0")
    ]


def test_a_later_version_takes_the_place_of_the_one_before(registry, publish):
    publish("1.0.0")
    assert fetch("tiny", "--from", registry) == 0
    publish("1.1.0", seed=1)
    assert fetch("tiny", "--from", registry, "--format", "tflite") == 0
    assert version_in(Path("tiny")) == "1.1.0"
    assert {path.name for path in Path("tiny").iterdir()} == APP


def test_a_file_that_was_changed_here_is_put_right(four, registry):
    fetch("tiny@1.2.0", "--from", registry)
    Path("tiny/model.onnx").write_bytes(b"other")
    assert fetch("tiny@1.2.0", "--from", registry) == 0
    assert Path("tiny/model.onnx").read_bytes() == (registry / "tiny/1.2.0/model.onnx").read_bytes()


def test_a_download_that_broke_off_goes_on_where_it_was(four, registry, server, refused):
    path = "/tiny/1.2.0/model.tflite"
    server.cut[path] = 2_000
    assert fetch("tiny@1.2.0", "--from", server.url, "--format", "tflite") == 0
    assert [asked for asked in server.asked if asked[0] == path] == [(path, None), (path, "bytes=2000-")]
    assert Path("tiny/model.tflite").read_bytes() == (registry / "tiny/1.2.0/model.tflite").read_bytes()


def test_the_next_fetch_goes_on_with_what_is_there(four, registry, server, refused, tmp_path):
    path = "/tiny/1.2.0/model.tflite"
    server.cut[path] = 0
    said = refused("fetch", "tiny@1.2.0", "--from", server.url, "--format", "tflite")
    assert path in said
    assert not Path("tiny").exists()
    (partial,) = [each for each in (tmp_path / "cache").iterdir() if each.suffix == ".partial"]
    partial.write_bytes((registry / path[1:]).read_bytes()[:3_000])
    server.asked.clear()
    assert fetch("tiny@1.2.0", "--from", server.url, "--format", "tflite") == 0
    assert (path, "bytes=3000-") in server.asked


def test_a_server_without_ranges_is_asked_for_the_whole(four, registry, server):
    server.plain, server.cut["/tiny/1.2.0/model.tflite"] = True, 2_000
    assert fetch("tiny@1.2.0", "--from", server.url, "--format", "tflite") == 0
    assert Path("tiny/model.tflite").read_bytes() == (registry / "tiny/1.2.0/model.tflite").read_bytes()


@pytest.mark.parametrize("over", ["folder", "http"])
def test_a_file_with_other_bytes_is_deleted_and_nothing_is_there(four, registry, server, refused, tmp_path, over):
    path = registry / "tiny/1.2.0/model.tflite"
    path.chmod(0o644)
    path.write_bytes(b"x" * 5_000)
    source = server.url if over == "http" else registry
    assert "its sha256 differs; it was deleted" in refused("fetch", "tiny@1.2.0", "--from", source)
    assert not Path("tiny").exists()
    assert [each.name for each in (tmp_path / "cache").iterdir() if each.suffix == ".partial"] == []


@pytest.mark.parametrize("size", [4_999, 5_001, 500_000])
def test_a_size_that_lies_is_refused(four, registry, server, refused, size):
    path = registry / "tiny/1.2.0/model.tflite"
    path.chmod(0o644)
    path.write_bytes(b"x" * size)
    refused("fetch", "tiny@1.2.0", "--from", server.url)
    assert not Path("tiny").exists()


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", "..", "a\\b", ".fetched.json", "manifest.json"])
def test_a_manifest_that_leads_out_of_its_folder_is_refused(four, registry, refused, name):
    manifest = json.loads((registry / "tiny/1.2.0/manifest.json").read_text())
    manifest["beside"][0]["file"] = name
    edit(registry / "tiny/1.2.0/manifest.json", **manifest)
    restate(registry, "1.2.0")
    assert "is no file in its own folder" in refused("fetch", "tiny@1.2.0", "--from", registry)
    assert not Path("tiny").exists()


@pytest.mark.parametrize("link", ["index.json", "1.2.0", "1.2.0/manifest.json", "1.2.0/model.tflite"])
def test_what_is_a_link_is_not_read(four, registry, refused, tmp_path, link):
    place = registry / "tiny" / link
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    assert "is a link" in refused("fetch", "tiny@1.2.0", "--from", registry)
    assert not Path("tiny").exists()


def test_an_index_that_lies_is_refused(four, registry, refused):
    index = json.loads((registry / "tiny/index.json").read_text())
    lies = [
        ({"versions": index["versions"] | {"1.2.0": index["versions"]["1.2.0"] | {"sha256": "0" * 64}}}, "differs"),
        ({"name": "other"}, "says that it is of 'other'"),
        ({"channels": {"stable": "9.9.9"}}, "channels are not what"),
        ({"versions": {"../1": index["versions"]["1.0.0"]}}, "is no semantic version"),
        ({"versions": []}, "a table is expected"),
        ({"schema": 7}, "schema 7"),
        ({"versions": {"1.2.0": index["versions"]["1.2.0"] | {"size_bytes": 10**10}}}, "is no size of a manifest"),
    ]
    for lie, words in lies:
        edit(registry / "tiny/index.json", **(index | lie))
        assert words in refused("fetch", "tiny@1.2.0", "--from", registry)
    (registry / "tiny/index.json").write_text("<html>not found</html>")
    assert "is no JSON" in refused("fetch", "tiny@1.2.0", "--from", registry)
    (registry / "tiny/index.json").unlink()
    os.mkfifo(registry / "tiny/index.json")
    refused("fetch", "tiny@1.2.0", "--from", registry)
    assert not Path("tiny").exists()


def test_the_manifest_of_another_release_is_refused(four, registry, refused):
    shutil.copyfile(registry / "tiny/1.0.0/manifest.json", registry / "copy")
    path = registry / "tiny/1.2.0/manifest.json"
    path.unlink()
    shutil.move(registry / "copy", path)
    restate(registry, "1.2.0")
    assert "of another name or version" in refused("fetch", "tiny@1.2.0", "--from", registry)


@pytest.mark.parametrize("file", ["tiny/index.json", "tiny/1.2.0/manifest.json"])
@pytest.mark.parametrize("over", ["folder", "http"])
def test_a_manifest_of_10_gigabytes_is_not_read(four, registry, server, refused, file, over, monkeypatch):
    path = registry / file
    path.chmod(0o644)
    if over == "http":  # what follows the limit is not waited for
        server.endless.add(f"/{file}")
        monkeypatch.setattr(place, "QUIET", 0.1)
        refused("fetch", "tiny@1.2.0", "--from", server.url)
        return
    with path.open("r+b") as sparse:
        sparse.truncate(10**10)
    assert "is larger than it may be" in refused("fetch", "tiny@1.2.0", "--from", registry)


def test_a_server_that_answers_slowly_for_ever_is_left(four, server, refused, monkeypatch):
    monkeypatch.setattr(place, "QUIET", 0.2)
    server.endless.add("/tiny/1.2.0/model.onnx")
    assert "too slowly" in refused("fetch", "tiny@1.2.0", "--from", server.url)
    assert not Path("tiny").exists()


@pytest.mark.parametrize(
    "to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/tiny/1.2.0/model.onnx", "http://127.0.0.1:1/"]
)
def test_where_a_server_leads_is_followed_on_the_web_alone(four, server, refused, to):
    server.led["/tiny/1.2.0/model.tflite"] = to
    refused("fetch", "tiny@1.2.0", "--from", server.url)
    assert not Path("tiny").exists()
    server.led["/tiny/1.2.0/model.tflite"] = "/tiny/1.2.0/moved"
    shutil.copyfile(server.root / "tiny/1.2.0/model.tflite", server.root / "tiny/1.2.0/moved")
    assert fetch("tiny@1.2.0", "--from", server.url) == 0


@pytest.mark.parametrize(("status", "words"), [(403, "no permission"), (401, "no permission"), (500, "answers 500")])
def test_what_a_server_refuses_is_said(four, server, refused, status, words):
    server.answers["/tiny/index.json"] = status
    assert words in refused("fetch", "tiny", "--from", server.url)


def test_names_versions_channels_and_formats_that_are_not_there_bring_the_nearest(four, registry, server, refused):
    for source in (registry, server.url):
        assert "there is no tinny; did you mean tiny?" in refused("fetch", "tinny", "--from", source)
        assert "no version 1.2.1; did you mean 1.2.0?" in refused("fetch", "tiny@1.2.1", "--from", source)
        assert "no channel stabel; did you mean stable?" in refused("fetch", "tiny@stabel", "--from", source)
        assert "no version is ^3.0; there is" in refused("fetch", "tiny@^3.0", "--from", source)
        assert "did you mean tflite?" in refused("fetch", "tiny", "--from", source, "--format", "tflight")
    assert not Path("tiny").exists()


@pytest.mark.parametrize(
    "wanted", ["tiny@", "tiny@^", "tiny@>=1", "tiny@1.2", "tiny@Stable", "tiny@../1", "tiny@^9" * 99]
)
def test_what_is_no_version_no_range_and_no_channel_is_refused(four, registry, refused, wanted):
    refused("fetch", wanted, "--from", registry)


def test_what_is_no_registry_is_said(tmp_path, refused, server, registry):
    assert "no such folder" in refused("fetch", "tiny", "--from", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "is no registry" in refused("fetch", "tiny", "--from", tmp_path / "empty")
    assert "is no registry" in refused("list", "--from", tmp_path / "empty")
    assert "no such folder" in refused("list", "--from", tmp_path / "none")
    refused("fetch", "tiny", "--from", "http://127.0.0.1:1")
    refused("list", "--from", server.url)
    assert "is opened by ssh://" in refused("list", "--from", "ssh://host/models")


def test_a_sum_that_is_not_the_manifests_is_refused(four, registry, refused):
    sums = {name: sum_of((registry / "tiny/1.2.0" / name).read_bytes()) for name in ("manifest.json", "model.tflite")}
    assert fetch("tiny@1.2.0", "--from", registry, "--sha256", sums["manifest.json"].upper()) == 0
    shutil.rmtree("tiny")
    said = refused("fetch", "tiny@1.2.0", "--from", registry, "--sha256", sums["model.tflite"])
    assert "that is the sha256 of model.tflite" in said
    assert sums["manifest.json"] in said
    assert not Path("tiny").exists()


def test_a_channel_that_went_back_is_followed_only_when_asked(registry, publish, refused):
    publish("1.0.0")
    publish("1.1.0", "--channel", "stable", seed=1)
    fetch("tiny@stable", "--from", registry)
    main(["channel", "tiny", "stable", "1.0.0", "--to", str(registry), "--reason", "thin objects are lost"])
    said = refused("fetch", "tiny@stable", "--from", registry)
    assert "thin objects are lost" in said
    assert "lower than the 1.1.0" in said
    assert version_in(Path("tiny")) == "1.1.0"
    assert fetch("tiny@stable", "--from", registry, "--allow-older") == 0
    assert version_in(Path("tiny")) == "1.0.0"
    assert fetch("tiny@stable", "--from", registry) == 0


def test_a_folder_that_holds_anything_else_is_left_alone(four, registry, refused, tmp_path, monkeypatch):
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    assert "no fetch put there" in refused("fetch", "tiny", "--from", registry, "--out", "mine")
    assert fetch("tiny@1.2.0", "--from", registry) == 0
    Path("tiny/notes.txt").write_text("mine")
    assert "is not of tiny" in refused("fetch", "tiny@2.0.0", "--from", registry)
    assert Path("tiny/notes.txt").read_text() == "mine"
    Path("file").write_text("")
    refused("fetch", "tiny", "--from", registry, "--out", "file")
    refused("fetch", "tiny", "--from", registry, "--out", ".")
    refused("fetch", "tiny", "--from", registry, "--out", "/")


def test_a_fetch_that_died_leaves_the_folder_before_and_the_next_one_mends_it(four, registry):
    fetch("tiny@1.0.0", "--from", registry)
    Path("tiny").rename(".tiny.replaced")
    Path(".tiny.fetching").mkdir()
    Path(".tiny.fetching/model.onnx").write_bytes(b"half")
    assert fetch("tiny@1.2.0", "--from", registry) == 0
    assert version_in(Path("tiny")) == "1.2.0"
    assert sorted(path.name for path in Path().iterdir()) == ["tiny"]


def test_a_name_with_a_password_is_not_shown(refused):
    said = refused("fetch", "tiny", "--from", "http://me:secret@127.0.0.1:1/models")
    assert "secret" not in said


def test_nothing_heavy_is_imported(four, registry, server):
    code = (
        "import sys\nfrom compress.cli import main\n"
        f"assert main(['fetch', 'tiny', '--from', '{server.url}']) == 0\n"
        f"assert main(['list', '--from', '{registry}']) == 0\n"
        "heavy = {'torch', 'numpy', 'onnx', 'onnxruntime', 'ai_edge_litert', 'pydantic', 'PIL', 'jinja2'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_release_of_two_names_does_not_mix_in_one_folder(four, registry, refused, tmp_path):
    other = write_release(tmp_path / "other", name="other")
    main(["publish", str(other), "--to", str(registry)])
    fetch("tiny", "--from", registry, "--out", "app")
    assert "holds tiny 2.0.0" in refused("fetch", "other", "--from", registry, "--out", "app")
