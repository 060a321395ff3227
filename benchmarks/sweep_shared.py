"""How much less work a sweep is than its runs one by one, with caches of their own, and that the files are the same.

    python benchmarks/sweep_shared.py [IMAGES [FLAGS OF compress run ...]]

A tiny network, six trials of one thread each; IMAGES without masks, 16 unless given, besides 24 with. What is counted
is processor time of all processes, with what starting Python and importing torch takes. A teacher as tiny as its
student takes next to none of a run, and what it takes is most of what is shared: with `3000 --tta flip,scale` it is
half. Of an hour's run of U²-Net that has its 3,900 photographs looked at for the first time, 0.63 s each on two cores,
it is two fifths.
"""

import hashlib
import os
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from conftest import RECIPE, SIZE, write_data, write_model
from tiny import TinyNet, picture

BUDGETS, SHARES = ("20KB", "25KB", "30KB"), ("0.3", "0.5")
IMAGES = 16


def make(folder: Path, images: int) -> list[str]:
    """What all runs are given."""
    (folder / "data").mkdir()
    (folder / "model").mkdir()
    data = write_data(folder / "data", two_classes=False)
    rng = np.random.default_rng(2)
    for i in range(images - 16):
        Image.fromarray(picture(rng, SIZE)[0]).save(data / "unlabelled" / f"more{i:05}.png")
    torch.manual_seed(0)
    model = write_model(folder / "model", TinyNet(), RECIPE, lambda net, masks: F.cross_entropy(net, masks.long()))
    return [str(model), "--data", str(data), "--unlabelled", str(data / "unlabelled")]


def seconds_of(command: list[str], cache: Path) -> float:
    """Processor seconds of a command and all that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "COMPRESS_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "compress", *command, "--quiet"], env=environment, stdout=subprocess.DEVNULL, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def sums(folder: Path) -> list[str]:
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("model.onnx", "model.tflite")]


def main(images: int, flags: list[str]) -> None:
    with TemporaryDirectory() as place:
        folder = Path(place)
        given, alone, same = [*make(folder, images), *flags], 0.0, 0
        swept = ["sweep", *given, "--budget", ",".join(BUDGETS), "--macs-share", ",".join(SHARES), "--cpus", "1"]
        together = seconds_of([*swept, "--out", str(folder / "sweep")], folder / "cache")
        print(f"sweep of {len(BUDGETS) * len(SHARES)} trials: {together:.1f} s", flush=True)
        for budget in BUDGETS:
            for share in SHARES:
                name = f"{budget.lower()}-m{share}"
                run = ["run", *given, "--budget", budget, "--macs-share", share, "--out", str(folder / name)]
                took = seconds_of(run, folder / f"cache-{name}")
                alone += took
                equal = sums(folder / name) == sums(folder / "sweep" / "trials" / name)
                same += equal
                print(f"{name} by itself: {took:.1f} s; files {'are the same' if equal else 'DIFFER'}", flush=True)
        print(
            f"{images} images: the sweep takes {together / alone:.2f} of {alone:.1f} s; {same} of 6 have the same files"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES, sys.argv[2:])
