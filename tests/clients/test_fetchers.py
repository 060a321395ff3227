"""What apps' builds fetch models with, in Kotlin and node, from a registry on this machine; Swift is parsed."""

import hashlib
import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import tree_sitter
import tree_sitter_kotlin
import tree_sitter_swift

ROOT = Path(__file__).parent.parent.parent
CLIENTS = ROOT / "export" / "clients"
MODEL, LABELS, GOLDEN = b"TFL3" * 40_000, b"background\nobject\n", b"PK golden"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(name: str, data: bytes, **more) -> dict:
    return {**more, "file": name, "sha256": sha256(data), "size_bytes": len(data)}


def manifest(**more) -> dict:
    return {
        "schema": 2,
        "name": "saliency",
        "version": "1.2.0",
        "licence": 'ours: "ask"\n\u00e4',
        "files": [entry("model.tflite", MODEL, format="tflite", input={"mean": None, "scale": -3.9e-3})],
        "beside": [entry("labels.txt", LABELS, role="labels"), entry("golden 1.npz", GOLDEN, role="golden")],
        **more,
    }


class Registry:
    """Served on this machine: what lies at each path, and which were asked for."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.replace("%20", " ")
                registry.asked.append(name.rpartition("/")[2])
                data = registry.files.get(name)
                if data is not None and data.startswith(b"-> "):
                    self.send_response(302)
                    self.send_header("Location", data[3:].decode())
                    data = b""
                else:
                    self.send_response(404 if data is None else 200)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/models"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def put(self, stated: object, **files: bytes) -> str:
        """Publishes; returns the sha256 of the manifest."""
        data = stated if isinstance(stated, bytes) else json.dumps(stated, indent=2).encode()
        held = {"model.tflite": MODEL, "labels.txt": LABELS, "golden 1.npz": GOLDEN, **files, "manifest.json": data}
        self.files = {f"/models/saliency/1.2.0/{name}": each for name, each in held.items()}
        self.asked.clear()
        return sha256(data)


@pytest.fixture
def registry():
    found = Registry()
    yield found
    found.server.shutdown()
    found.server.server_close()


def kotlin() -> list[str]:
    """The command of FetchModel.kt, as `make clients` compiled it; the test is skipped where it could not."""
    jar, source = ROOT / ".kotlin" / "fetch-model.jar", CLIENTS / "android" / "FetchModel.kt"
    if not jar.exists() or not shutil.which("java"):
        pytest.skip("FetchModel.kt is not compiled: run `make clients`, which says why where it cannot be")
    assert jar.stat().st_mtime >= source.stat().st_mtime, (
        "FetchModel.kt is newer than what is tested: run `make clients`"
    )
    return ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", str(jar), "FetchModelKt"]


@pytest.fixture(params=["node", "kotlin"])
def fetch(request, registry, tmp_path):
    """Runs a fetcher; returns its exit code and the one line that it says."""
    if request.param == "node" and not shutil.which("node"):
        pytest.skip("no node: install Debian's package nodejs")
    node = ["node", str(CLIENTS / "web" / "fetch-model.mjs")]
    command = node if request.param == "node" else kotlin()

    def run(digest: str, *more: object, model: str = "saliency@1.2.0", out: bool = True) -> tuple[int, str]:
        place = ["--out", tmp_path / "app"] if out else []
        arguments = [model, "--from", registry.url, "--sha256", digest, *place, *more]
        done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)
        assert "Exception" not in done.stderr
        assert "    at " not in done.stderr
        [line] = (done.stdout + done.stderr).splitlines()
        return done.returncode, line

    return run


def held(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_is_fetched_with_its_labels_and_only_what_is_missing_again(fetch, registry, tmp_path):
    stated = manifest()
    digest = registry.put(stated)
    assert fetch(digest) == (0, f"saliency@1.2.0: 2 of 2 files fetched into {tmp_path / 'app'}")
    expected = {"model.tflite": MODEL, "labels.txt": LABELS, "manifest.json": json.dumps(stated, indent=2).encode()}
    assert held(tmp_path / "app") == expected
    registry.asked.clear()
    assert fetch(digest)[1].startswith("saliency@1.2.0: 0 of 2 files")
    assert registry.asked == ["manifest.json"]
    (tmp_path / "app" / "labels.txt").write_bytes(b"x" * len(LABELS))
    assert fetch(digest, "--with", "golden")[1].startswith("saliency@1.2.0: 2 of 3 files")
    assert held(tmp_path / "app") == {**expected, "golden 1.npz": GOLDEN}


@pytest.mark.parametrize(
    "bytes_there",
    [b"x" * len(MODEL), MODEL + b"x", MODEL[:-1], b"-> file:///etc/passwd"],
    ids=["others", "longer", "shorter", "a redirect to a file"],
)
def test_a_file_that_is_not_the_manifests_leaves_what_was_there(fetch, registry, tmp_path, bytes_there):
    digest = registry.put(manifest(), **{"model.tflite": bytes_there})
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "model.tflite").write_bytes(b"earlier")
    code, line = fetch(digest)
    assert code == 2
    assert "model.tflite: " in line
    assert held(tmp_path / "app") == {"model.tflite": b"earlier"}


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        (manifest(files=[entry("../model.tflite", MODEL, format="tflite")]), "is no file in its own folder"),
        (manifest(files=[entry("/tmp/model.tflite", MODEL, format="tflite")]), "is no file in its own folder"),
        (manifest(files=[entry("C:model.tflite", MODEL, format="tflite")]), "is no file in its own folder"),
        (manifest(files=[entry("manifest.json", MODEL, format="tflite")]), "is no file in its own folder"),
        (manifest(files=[{"format": "tflite", "file": "model.tflite", "sha256": "x", "size_bytes": 1}]), "no sha256"),
        (manifest(files=[entry("model.onnx", MODEL, format="onnx")]), "has no tflite file, but onnx"),
        (manifest(version="1.1.0"), "the manifest is of saliency@1.1.0"),
        (manifest(schema=3), "schema 3"),
        (b"{" * 50_000, "is no JSON"),
    ],
    ids=["outside", "absolute", "drive", "itself", "no sum", "no format", "another version", "new schema", "no JSON"],
)
def test_a_manifest_that_cannot_be_is_refused(fetch, registry, tmp_path, stated, told):
    code, line = fetch(registry.put(stated))
    assert code == 2
    assert told in line
    assert not (tmp_path / "app").exists()


def test_another_manifest_than_the_one_that_was_named_is_refused(fetch, registry, tmp_path):
    registry.put(manifest())
    assert fetch("0" * 64) == (2, f"fetch-model: {registry.url}/saliency/1.2.0/manifest.json: "
                                  "is not the manifest with this sha256")  # fmt: skip
    assert "404" in fetch("0" * 64, model="saliency@9.9.9")[1]
    for model in ("saliency", "Saliency@1.2.0", "../x@1.2.0", "saliency@stable"):
        assert fetch("0" * 64, model=model)[0] == 2
    assert "--sha256" in fetch("abc")[1]
    assert "--out DIR or --aipack DIR" in fetch("0" * 64, out=False)[1]
    assert not (tmp_path / "app").exists()


def test_a_play_ai_pack_is_a_folder_that_gradle_takes(fetch, registry, tmp_path):
    pack = tmp_path / "saliency_pack"
    assert fetch(registry.put(manifest()), "--aipack", pack, out=False)[0] == 0
    files = held(pack)
    assert sorted(files) == [
        "build.gradle.kts",
        *(f"src/main/assets/saliency/{name}" for name in ("labels.txt", "manifest.json", "model.tflite")),
    ]
    assert b'id("com.android.ai-pack")' in files["build.gradle.kts"]
    assert b'packName = "saliency_pack"' in files["build.gradle.kts"]
    code, line = fetch(sha256(files["src/main/assets/saliency/manifest.json"]), "--aipack", tmp_path / "1-a", out=False)
    assert (code, "a pack's name has letters" in line) == (2, True)


SAMPLES = [*CLIENTS.glob("android/*.kt"), *CLIENTS.glob("ios/*.swift")]


@pytest.mark.parametrize("path", sorted(SAMPLES), ids=lambda path: path.name)
def test_samples_for_which_there_is_no_sdk_here_can_be_parsed(path):
    def wrong(node):
        return [node.start_point] * (node.type == "ERROR" or node.is_missing) + sum(map(wrong, node.children), [])

    grammar = tree_sitter_swift if path.suffix == ".swift" else tree_sitter_kotlin
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    assert wrong(parser.parse(path.read_bytes()).root_node) == []
