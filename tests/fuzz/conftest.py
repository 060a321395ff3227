"""What is good, to be damaged; and the processes that try it."""

import json
import os
import queue
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny import TinyNet, picture

from compress.cli import main
from compress.formats.npz import read_graph
from compress.judge.verify import GRAPH
from compress.machine import cores
from compress.release.export import EXPORTERS

HERE = Path(__file__).parent

RECIPE = """
name = "tiny"
version = "1.0.0"
description = "discs and squares"
seed = 0
formats = ["onnx", "tflite"]
quantize = "qat"
[model]
architecture = "tiny.py:TinyNet"
output = 0
classes = ["background", "disc", "square"]
input_size = [32, 32]
[preprocess]
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
[plan]
method = "damage"
images = 4
size = [32, 32]
macs_share = 0.5
cuts = 1
[repair]
images = 4
size = [32, 32]
[train]
steps = 2
batch = 4
learning_rate = 6e-3
size = [32, 32]
features = 8
qat_share = 0.5
[measure]
seconds = 0.01
margin = 0.01
"""


@pytest.fixture(scope="session")
def corpus(tiny_model, tmp_path_factory) -> Path:
    """A model with its recipe, images, a finished run and exported files."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, tiny_model.parent)
    return folder


def write_corpus(folder: Path, model: Path) -> None:
    (folder / "model").mkdir()
    for name in ("tiny.pt", "tiny.py"):
        (folder / "model" / name).write_bytes((model / name).read_bytes())
    (folder / "model" / "tiny.toml").write_text(RECIPE)
    _write_door(folder / "door", model)
    _write_images(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESS_CACHE", str(folder / "cache"))
        arguments = ["--budget", "20KB", "--data", str(folder / "data"), "--out", str(folder / "run")]
        assert main(["run", str(folder / "model" / "tiny.pt"), *arguments]) == 0
    _write_files(folder)


def _write_door(folder: Path, model: Path) -> None:
    """The same model in each of the other kinds of file, a recipe beside each."""
    folder.mkdir()
    (folder / "tiny.py").write_bytes((model / "tiny.py").read_bytes())
    module, image = TinyNet().eval(), torch.zeros(1, 3, 32, 32)
    module.load_state_dict(torch.load(model / "tiny.pt", weights_only=True))
    torch.jit.script(module).save(folder / "script.pt")
    torch.export.save(torch.export.export(module, (image,)), folder / "tiny.pt2")
    torch.onnx.export(module, (image,), folder / "tiny.onnx", dynamo=False)
    save_file(module.state_dict(), folder / "tiny.safetensors")
    for name in ("script", "tiny"):
        (folder / f"{name}.toml").write_text(RECIPE)


def _write_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for part, count in {"train": 6, "val": 4}.items():
        for name in ("images", "masks"):
            (folder / part / name).mkdir(parents=True)
        for number in range(count):
            image, mask = picture(rng, 32)
            Image.fromarray(image).save(folder / part / "images" / f"{number}.png")
            Image.fromarray(mask).save(folder / part / "masks" / f"{number}.png")
    (folder / "unlabelled").mkdir()
    for number in range(4):
        Image.fromarray(picture(rng, 32)[0]).save(folder / "unlabelled" / f"u{number}.png")


def _write_files(folder: Path) -> None:
    files = folder / "files"
    files.mkdir()
    for suffix in ("onnx", "tflite"):
        (files / f"model.{suffix}").write_bytes((folder / "run" / f"model.{suffix}").read_bytes())
    EXPORTERS["ort"](read_graph(folder / "run" / GRAPH), files / "model.ort")
    (teacher,) = (folder / "cache").glob("teacher-*.onnx")
    (files / "float.onnx").write_bytes(teacher.read_bytes())
    (files / "float.toml").write_text(RECIPE)


@pytest.fixture(scope="session")
def outcomes(request, corpus, tmp_path_factory):
    """How each trial of this session ended, by its name: as many run at once as there are processors."""
    params = [item.callspec.params for item in request.session.items if "outcomes" in item.fixturenames]
    names = [each["name"] if "name" in each else f"{each['good'].name}-0" for each in params]
    found: dict[str, Future[dict[str, Any]]] = {name: Future() for name in names}
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)
    folder = tmp_path_factory.mktemp("hostile")
    workers = [_worker(corpus, folder / str(number)) for number in range(min(len(names), cores()))]
    feeders = [threading.Thread(target=_feed, args=(worker, waiting, found), daemon=True) for worker in workers]
    for feeder in feeders:
        feeder.start()
    yield found
    for worker in workers:
        worker.kill()
        worker.wait()


def _worker(corpus: Path, folder: Path) -> subprocess.Popen[str]:
    more = {
        "COMPRESS_CACHE": str(corpus / "cache"),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "TQDM_DISABLE": "1",
    }
    return subprocess.Popen(
        [sys.executable, str(HERE / "worker.py"), str(corpus), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | more,
        text=True,
    )


def _feed(
    worker: subprocess.Popen[str], waiting: "queue.SimpleQueue[str]", found: dict[str, Future[dict[str, Any]]]
) -> None:
    assert worker.stdin
    assert worker.stdout
    while not waiting.empty():
        try:
            name = waiting.get_nowait()
        except queue.Empty:
            return
        worker.stdin.write(f"{name}\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
        found[name].set_result(json.loads(line) if line else {"wrong": ["the fuzzer itself died"], "stderr": ""})
