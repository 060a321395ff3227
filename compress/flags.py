"""The options of `compress run`: what the command line reads, and which setting of the recipe each replaces.

Plain values, so that the command shows its help without importing what reads recipes.
"""

from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMITS = "4MB, 20ms, macs<=1.5G, iou>=0.86, ... of each exported file (repeatable)"


@dataclass(frozen=True)
class Flag:
    """One option. `setting` is what it replaces in the recipe, "data.folder" being `folder` in [data]; None: it is no
    part of the recipe. `instead_of` is a setting that does not count where the flag is given. A flag without `metavar`
    takes no value."""

    name: str
    help: str
    setting: str | None = None
    metavar: str | None = None
    type: Callable[[str], Any] = str
    repeatable: bool = False
    instead_of: str | None = None

    @property
    def key(self) -> str:
        """Its name in Python: "keep_float" of --keep-float."""
        return self.name.removeprefix("--").replace("-", "_")

    def written(self, value: Any) -> str:
        """A value as the command line takes it, a path from the root."""
        if self.type is height_and_width:
            return "x".join(map(str, value))
        if isinstance(value, list | tuple):
            return ",".join(map(str, value))
        if self.name == "--arch" and ".py:" in value:
            return str(Path(value).absolute())
        return str(value.absolute() if isinstance(value, Path) else value)


def listed(text: str) -> list[str]:
    return text.split(",")


LARGEST_SIDE = 8192  # pixels of an image
MOST_CHANNELS = 32  # of an image


def height_and_width(text: str) -> tuple[int, int]:
    """Of "320x240". Raises ArgumentTypeError."""
    height, sign, width = text.partition("x")
    if not (sign and height.isascii() and width.isascii() and height.isdigit() and width.isdigit()):
        raise ArgumentTypeError(f"{text!r} is no height and width; write it like 320x320")
    if not 1 <= int(height) <= LARGEST_SIDE or not 1 <= int(width) <= LARGEST_SIDE:
        raise ArgumentTypeError(f"{text}: from 1 to {LARGEST_SIDE} pixels")
    return int(height), int(width)


def square_or_not(text: str) -> tuple[int, int]:
    """Of "320", or of "320x240". Raises ArgumentTypeError."""
    return height_and_width(f"{text}x{text}" if text.isdigit() else text)


def sizes(text: str) -> list[tuple[int, int]]:
    return [square_or_not(part) for part in text.split(",")]


def key(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() else text


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


MODEL_FLAGS = (
    Flag("--arch", "code of the module: file.py:Name, package:Name(key=value)", "model.architecture", "CODE"),
    Flag("--classes", "names, by id", "model.classes", "LIST", listed),
    Flag("--size", "of the images that the network reads", "model.input_size", "HxW", height_and_width),
    Flag("--output", "which of the model's outputs: its name, or its place from 0", "model.output", "KEY", key),
    Flag("--mean", "of pixel / 255, as the model was trained on", "preprocess.mean", "R,G,B", numbers),
    Flag("--std", "of pixel / 255", "preprocess.std", "R,G,B", numbers),
)
"""What a model is: instead of a recipe, or of what it says."""

RUN_FLAGS = (
    Flag(
        "--resume",
        "go on with the run in this output folder, until it was trained for --minutes where they are given",
        metavar="DIR",
        type=Path,
    ),
    Flag("--trust-code", "with --resume: go on with a run that was not started here, and run its code"),
    Flag("--budget", LIMITS, "budget", "LIMIT", repeatable=True),
    Flag("--data", "folder with train/ and val/, each images/ and masks/", "data.folder", "DIR", Path),
    Flag("--unlabelled", "folder of more images, without masks", "data.unlabelled", "DIR", Path),
    Flag("--pictures", "photographs for the report, not validation images", "report.pictures", "DIR", Path),
    Flag("--out", "output folder (default: export/NAME)", metavar="DIR", type=Path),
    Flag("--minutes", "training time (default: the recipe's)", "train.minutes", "N", float, instead_of="train.steps"),
    Flag("--seed", "seed of every random choice (default: the recipe's)", "seed", "N", int),
    Flag(
        "--teacher",
        "model or folder of maps that teaches (repeatable; default: MODEL)",
        "teacher.models",
        "FILE|DIR",
        Path,
        True,
    ),
    Flag(
        "--student",
        "network to train in place of a narrower MODEL: file.py:Name, light, or auto",
        "student.network",
        "CODE",
    ),
    Flag("--student-weights", "what the student starts with, all of it or a part", "student.weights", "FILE", Path),
    Flag("--tta", "of flip, scale: views that each teacher averages (default: none)", "teacher.tta", "LIST", listed),
    Flag("--plan", "damage; to compare: uniform, magnitude, random (default: damage)", "plan.method", "HOW"),
    Flag(
        "--input-size",
        "of the images that the student reads; of several a short trial decides (default: the model's)",
        "plan.input_sizes",
        "LIST",
        sizes,
    ),
    Flag(
        "--macs-share",
        "multiply-accumulates of the student as a share of the model's, at most (default: the recipe's, 0.115)",
        "plan.macs_share",
        "X",
        float,
    ),
    Flag("--controls", "also train, to compare: random pruning, a small network", "controls.run"),
    Flag("--quantize", "qat trains with int8, ptq calibrates only (default: qat)", "quantize", "HOW"),
    Flag("--keep-float", "computes in float (repeatable)", "keep_float", "LAYER", repeatable=True),
    Flag("--sensitivity", "rank layers, keep the worst float if bytes are left", "sensitivity"),
    Flag("--dry-run", "say what a run would do, in minutes, widths and bytes, and write nothing"),
    Flag("--json", "print the record of the run as JSON; the text for people goes to stderr then"),
    Flag("--formats", "of onnx, tflite, ort (default: the recipe's)", "formats", "LIST", listed),
)

_ONCE = (
    "--resume",
    "--trust-code",
    "--budget",
    "--input-size",
    "--macs-share",
    "--seed",
    "--out",
    "--dry-run",
    "--json",
)
SWEEP_GIVES = tuple(flag for flag in RUN_FLAGS if flag.name not in _ONCE)
"""Those that a sweep gives each of its runs as they are; of the others it has its own."""
