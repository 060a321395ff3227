"""Releases of a few bytes, which nothing but their sums tells from real ones, and a server with faults to choose."""

import hashlib
import json
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SHAPE = {"tflite": ("NHWC", [1, 8, 8, 3], [1, 8, 8, 2]), "onnx": ("NCHW", [1, 3, 8, 8], [1, 2, 8, 8])}


def sum_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def model(form: str, data: bytes) -> dict[str, Any]:
    layout, given, made = SHAPE[form]
    return {
        "format": form,
        "file": f"model.{form}",
        "sha256": sum_of(data),
        "size_bytes": len(data),
        "runtime": {"name": "some", "oldest": "1.6.0"},
        "input": {"name": "image", "shape": given, "dtype": "uint8", "layout": layout, "mean": None, "std": None},
        "output": {"name": "map", "shape": made, "dtype": "uint8", "layout": layout, "scale": 1 / 256, "zero_point": 0},
    }


def write_release(folder: Path, seed: int = 0, size: int = 5_000, **more: Any) -> Path:
    """A folder as a run leaves it: two models of `size` bytes, and what lies beside them. `more` goes into the
    manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    stream = hashlib.shake_128(f"{seed}".encode()).digest(2 * size)
    files = {"model.onnx": stream[:size], "model.tflite": stream[size:], "labels.txt": b"background\nobject\n"}
    files |= {"golden.npz": b"golden", "report.json": b"{}", "report.html": b"<p>"}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    roles = {"labels": "labels.txt", "golden": "golden.npz", "report": "report.json", "page": "report.html"}
    manifest = {
        "schema": 2,
        "name": "tiny",
        "version": "1.0.0",
        "description": "finds it",
        "author": "A. Uthor",
        "licence": "CC0-1.0",
        "created": "2026-11-29T12:00:00+00:00",
        "replaces": None,
        "compatible_with": [],
        "classes": ["background", "object"],
        "multilabel": False,
        "input": {"height": 8, "width": 8, "channels": 3, "colours": "RGB", "resize": "bilinear"},
        "output": {"height": 8, "width": 8, "channels": ["background", "object"], "decision": "argmax"},
        "files": [model(form, files[f"model.{form}"]) for form in ("onnx", "tflite")],
        "beside": [
            {"role": role, "file": name, "sha256": sum_of(files[name]), "size_bytes": len(files[name])}
            for role, name in roles.items()
        ],
        "verdict": {"passed": True, "checks": ["tflite size 5,000 of 6,000 bytes: within budget"]},
        "measurements": {"of": {}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest | more, indent=2) + "\n")
    return folder


class Server(ThreadingHTTPServer):
    """Serves `root` with ranges. `asked`: each path with the range that was asked for. `cut`: bytes after which a body
    of a path breaks off, once. `led`: paths that lead elsewhere. `answers`: the status of a path. `plain`: it knows no
    ranges."""

    daemon_threads = True

    def __init__(self, root: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.url = root, f"http://127.0.0.1:{self.server_port}"
        self.asked: list[tuple[str, str | None]] = []
        self.cut: dict[str, int] = {}
        self.led: dict[str, str] = {}
        self.answers: dict[str, int] = {}
        self.endless: set[str] = set()
        self.plain = False
        self.over = threading.Event()

    def handle_error(self, *_: object) -> None:
        """A client that left is no error here."""


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def translate_path(self, path: str) -> str:
        return str(self.server.root / path.strip("/"))

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.asked.append((self.path, asked))
        if self.path in server.led:
            self._head(302, 0, Location=server.led[self.path])
        elif self.path in server.answers:
            self._head(server.answers[self.path], 0)
        elif self.path in server.endless:
            self._trickle()
        elif not Path(self.translate_path(self.path)).is_file():
            super().do_GET()
        else:
            self._file(Path(self.translate_path(self.path)).read_bytes(), asked)

    def _file(self, data: bytes, asked: str | None) -> None:
        server = self.server
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and not server.plain else 0
        self._head(206 if start else 200, len(data) - start)
        cut = server.cut.pop(self.path, None)
        self.wfile.write(data[start:cut])
        if cut is not None:
            self.close_connection = True

    def _trickle(self) -> None:
        """A byte at a time, until the test is over."""
        self._head(200, 1_000_000)
        while not self.server.over.wait(0.02):
            try:
                self.wfile.write(b" ")
            except OSError:
                return
        self.close_connection = True

    def _head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
