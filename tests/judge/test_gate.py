"""The gate on a network whose answers are known: class 1 where a pixel is brighter than half."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from compress.cli import main
from compress.errors import DataError, MeasureError
from compress.files import sha256_of
from compress.graph.operators.conv import ConvAttributes
from compress.graph.quantized import QuantizedGraph, QuantizedOperator, TensorSpec
from compress.judge.bench import Options, bench
from compress.judge.gate import Rules, gate
from compress.judge.gate_text import gate_table
from compress.measure.values import Latency
from compress.release.export import EXPORTERS

ROOT = Path(__file__).parent.parent.parent
SIZE = 8
POINTWISE = ConvAttributes()


def brightness(threshold: float = 0.5, quantized: bool = True) -> QuantizedGraph:
    """softmax(0, 20 * (mean of RGB - threshold)), int8 or float."""
    scale = np.array([1 / 127, 20 / 3 / 127], np.float32)
    weight = np.array([[0, 0, 0], [127, 127, 127]], np.int8).reshape(2, 3, 1, 1)
    bias = np.array([0, -20 * threshold], np.float32)
    ends = (
        TensorSpec("logits", (1, 2, SIZE, SIZE), 20 / 127 if quantized else None, 0),
        TensorSpec("map", (1, 2, SIZE, SIZE), 1 / 256 if quantized else None, -128 if quantized else 0),
    )
    tensors = {spec.name: spec for spec in (TensorSpec("image", (1, 3, SIZE, SIZE), 1 / 255, -128), *ends)}
    if quantized:
        bias = np.rint(bias / (scale / 255)).astype(np.int32)
        conv = QuantizedOperator("conv", "conv", ("image",), "logits", POINTWISE, None, weight, scale, bias)
    else:
        real = weight * scale[:, None, None, None]
        conv = QuantizedOperator("conv", "conv", ("image",), "logits", POINTWISE, None, real, None, bias)
    return QuantizedGraph(
        "bright", tensors, (conv, QuantizedOperator("softmax", "soft", ("logits",), "map")), "image", "map"
    )


def write_manifest(folder: Path, **more) -> None:
    files = [
        {"format": path.suffix[1:], "file": path.name, "sha256": sha256_of(path)}
        for path in sorted(folder.glob("model.*"))
    ]
    manifest = {"schema": 1, "classes": ["background", "object"], "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest | more))


def write_report(folder: Path, p50_ms: float = 10.0, size_bytes: int | None = None) -> Path:
    """What a run's report says of its files, as far as a gate reads it."""
    measured = {
        "size_bytes": size_bytes,
        "latency": {"p50_ms": p50_ms, "p90_ms": p50_ms},
        "iou": {"mean": 0.9, "low": 0.88, "high": 0.92},
        "speedup": {"mean": 10, "low": 8, "high": 12.5},
        "iou_drop": {"mean": 0.005, "low": 0.002, "high": 0.008},
    }
    artifacts = [{"format": path.suffix[1:], "sha256": sha256_of(path)} for path in folder.glob("model.*")]
    measurements = {artifact["format"]: measured for artifact in artifacts}
    (folder / "report.json").write_text(json.dumps({"artifacts": artifacts, "measurements": measurements}))
    return folder / "report.json"


@pytest.fixture
def run(tmp_path) -> Path:
    """An output folder with both files, its manifest and report."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("onnx", "tflite"):
        EXPORTERS[name](brightness(), folder / f"model.{name}")
    write_manifest(folder)
    write_report(folder)
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    """Twelve images, their upper half bright, which is the object; but in each fourth mask the object is all of it."""
    for part in ("images", "masks"):
        (tmp_path / "data" / "val" / part).mkdir(parents=True)
    for i in range(12):
        image, mask = np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((SIZE, SIZE), np.uint8)
        image[: SIZE // 2], mask[: SIZE if i % 4 == 3 else SIZE // 2] = 255, 1
        Image.fromarray(image).save(tmp_path / "data" / "val" / "images" / f"{i}.png")
        Image.fromarray(mask).save(tmp_path / "data" / "val" / "masks" / f"{i}.png")
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """The current folder holds no compress.toml, and CI is not where this runs."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


def gated(target: Path, *limits: str, **more):
    return gate(target, Rules(limits), **more)


def refused(capsys, *arguments) -> str:
    """The one line on stderr of a command that exits with 2."""
    assert main(["gate", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


class Turns:
    """`take_turns` whose files take so many milliseconds, with 10 turns of one inference, round by round; and the clock
    by which a round takes as long as it is asked to."""

    def __init__(self, *rounds: dict[str, list[float]]):
        self.rounds, self.seconds, self.now = list(rounds), [], 0.0

    def __call__(self, files, *, seconds, turns):
        self.seconds.append((seconds, turns))
        self.now += seconds * len(files)
        self.files = dict(files)
        now = self.rounds.pop(0) if len(self.rounds) > 1 else self.rounds[0]
        return {name: Latency(now[name][0], now[name][0], tuple(now[name]), 2, "fake", 10) for name in files}


def steady(ms: float) -> list[float]:
    return [ms] * 10


def restless(ms: float) -> list[float]:
    return [ms * factor for factor in (0.7, 0.8, 0.9, 1.0, 1.0, 1.0, 1.1, 1.2, 1.3, 1.4)]


# --- sizes


def test_a_size_is_judged_for_every_file_of_a_folder_and_the_exit_code_says_it(run, capsys):
    sizes = {path.suffix: path.stat().st_size for path in run.glob("model.*")}
    assert main(["gate", str(run), "--budget", f"{max(sizes.values())}B"]) == 0
    assert main(["gate", str(run), "--budget", f"{max(sizes.values()) - 1}B"]) == 1
    out = capsys.readouterr().out
    assert f"onnx size    {sizes['.onnx']:,}" in out
    assert "over budget" in out


def test_a_single_file_needs_no_manifest(run, tmp_path):
    path = (run / "model.tflite").rename(tmp_path / "alone.tflite")
    assert gated(path, "1MB").verdict.passed
    assert not gated(path, "100B").verdict.passed


def test_a_gate_on_sizes_reads_files_with_their_parsers_and_imports_no_runtime(run):
    code = (
        "import sys; from compress.cli import main; code = main(sys.argv[1:]);"
        "print(*{name.partition('.')[0] for name in sys.modules}); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "gate", str(run), "--budget", "1MB"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    heavy = {"torch", "onnxruntime", "PIL", "pydantic", "jinja2", "tqdm", "scipy"}
    assert heavy & set(done.stdout.splitlines()[-1].split()) == set()


def test_a_gate_on_iou_needs_no_torch_and_the_action_installs_the_package_without_it(run, data):
    code = (
        "import sys; from compress.cli import main; code = main(sys.argv[1:]);"
        "print(*{name.partition('.')[0] for name in sys.modules}); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "gate", str(run), "--budget", "iou>=0.5", "--data", str(data)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    left_out = {"torch", "jinja2"}
    assert left_out & set(done.stdout.splitlines()[-1].split()) == set()
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert "torch" not in {re.split("[<>=]", one)[0] for one in needed}
    (line,) = re.findall(r"pip\" install ((?:.|\\\n)*?)\n {4}-", (ROOT / "action.yml").read_text())
    options = ["--quiet", "--disable-pip-version-check", "--constraint", '"$ACTION/constraints.txt"']
    assert line.replace("\\", "").split() == [*options, '"$ACTION"']


@pytest.mark.parametrize("name", ["../secret.tflite", "/etc/passwd", "sub/model.tflite", "..", ".", "", "a\0b"])
def test_a_manifest_that_leads_out_of_its_folder_is_refused(run, capsys, name):
    write_manifest(run, files=[{"format": "tflite", "file": name, "sha256": "0" * 64}])
    assert "no file in its own folder" in refused(capsys, run, "--budget", "1MB")


def test_a_link_is_the_file_that_it_leads_to_if_its_sum_is(run, tmp_path, capsys):
    """As DVC, Bazel and git-annex put files in place."""
    outside = (run / "model.tflite").rename(tmp_path / "outside.tflite")
    (run / "model.tflite").symlink_to(outside)
    size_bytes = outside.stat().st_size
    assert gated(run, "1MB").verdict.checks[1].measured == size_bytes
    assert gated(run / "model.tflite", f"{size_bytes - 1}B").verdict.passed is False
    outside.write_bytes((run / "model.onnx").read_bytes())
    assert "sha256 differs" in refused(capsys, run, "--budget", "1MB")
    outside.unlink()
    assert "is missing" in refused(capsys, run, "--budget", "1MB")


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "[" * 100_000, '{"schema": 2}', '{"schema": true}', '{"schema": 1, "files": [{}]}']
    + ['{"schema": 1, "files": []}', '{"schema": 1, "schema": 1}', '{"schema": NaN}', "9" * 5000],
)
def test_a_manifest_that_is_none_is_one_line(run, capsys, text):
    (run / "manifest.json").write_text(text)
    assert "manifest.json" in refused(capsys, run, "--budget", "1MB")


def test_a_file_that_the_manifest_does_not_describe_is_not_judged(run, capsys):
    with (run / "model.tflite").open("ab") as file:
        file.write(b"more")
    assert "sha256 differs" in refused(capsys, run, "--budget", "1MB")
    (run / "model.tflite").unlink()
    assert "is missing" in refused(capsys, run, "--budget", "1MB")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda files: files[:1], "model.tflite: ships, but manifest.json does not name it"),
        (lambda files: [*files, files[0]], "two files have the same file"),
        (lambda files: [files[0], files[0] | {"format": "tflite"}], "'model.onnx' is no file of format 'tflite'"),
        (lambda files: [files[0] | {"size_bytes": 1}, files[1]], "bytes, not those that the manifest states"),
        (lambda files: [files[0] | {"input": {"mean": [0, 0, 0], "std": [1, 0, 1]}}, files[1]], "input.std"),
        (lambda files: [files[0] | {"input": {"mean": [True, 0, 0]}}, files[1]], "input.mean"),
        (lambda files: [files[0] | {"input": 5}, files[1]], "a table is expected"),
    ],
)
def test_a_manifest_that_does_not_say_what_ships_is_refused(run, capsys, change, word):
    files = json.loads((run / "manifest.json").read_text())["files"]
    write_manifest(run, files=change(files))
    assert word in refused(capsys, run, "--budget", "1MB")


def test_two_files_of_one_format_do_not_hide_each_other(run, capsys):
    shutil.copy(run / "model.onnx", run / "model.2.onnx")
    write_manifest(run)
    assert "two files have the same format" in refused(capsys, run, "--budget", "1MB")


def test_a_reference_in_the_folder_is_no_file_that_ships(run):
    shutil.copy(run / "model.onnx", run / "teacher.onnx")
    turns = Turns({"tflite": steady(1), "reference teacher.onnx": steady(10)})
    assert gate(run, Rules(("latency<=0.12x teacher.onnx",), run), take_turns=turns).verdict.passed
    with pytest.raises(MeasureError, match=r"teacher\.onnx: ships"):
        gated(run, "1MB")


def test_weights_outside_the_file_ship_too(run, tmp_path):
    model = onnx.load(run / "model.onnx")
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    size_bytes = (tmp_path / "split.onnx").stat().st_size + (tmp_path / "weights.bin").stat().st_size
    result = gated(tmp_path / "split.onnx", f"{size_bytes - 1}B")
    assert result.verdict.checks[0].measured == size_bytes
    assert not result.verdict.passed
    assert result.notes == ("onnx size: with weights.bin, which holds weights of split.onnx",)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "report.json", "compress.toml"])
def test_what_has_no_end_is_refused_where_a_file_is_expected(run, capsys, name, make):
    (run / name).unlink(missing_ok=True)
    make(run / name)
    assert name in refused(capsys, run, *([] if name == "compress.toml" else ["--budget", "1MB"]))


@pytest.mark.parametrize("name", ["fifo.onnx", "/dev/zero", "x" * 300 + ".onnx", "loop.onnx"])
def test_a_target_that_is_no_file_is_refused(tmp_path, capsys, name):
    os.mkfifo(tmp_path / "fifo.onnx")
    (tmp_path / "loop.onnx").symlink_to("loop.onnx")
    assert name in refused(capsys, tmp_path / name, "--budget", "1MB")


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("model.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        ("model.onnx", b"<html><body>404: not found</body></html>", "an HTML page"),
        ("model.tflite", b"", "zero bytes"),
        ("model.tflite", b"not a flatbuffer at all", "not a model"),
        ("model.ort", b"not a flatbuffer at all", "not a model"),
        ("model.txt", b"text", ".tflite"),
    ],
)
def test_what_is_no_model_does_not_pass_for_being_small(tmp_path, capsys, name, content, word):
    (tmp_path / name).write_bytes(content)
    line = refused(capsys, tmp_path / name, "--budget", "1MB")
    assert word in line
    assert name in line


def test_a_target_that_is_not_there(tmp_path, capsys):
    assert "no such file or folder" in refused(capsys, tmp_path / "none", "--budget", "1MB")
    (tmp_path / "empty").mkdir()
    assert "compress run" in refused(capsys, tmp_path / "empty", "--budget", "1MB")


def test_a_truncated_file_is_one_line_where_it_must_run(run, data, capsys):
    path = run / "model.tflite"
    path.write_bytes(path.read_bytes()[:600])
    assert "model.tflite" in refused(capsys, path, "--budget", "iou>=0.5", "--data", data)


# --- budgets


def test_no_budget_at_all(run, capsys):
    assert "--budget" in refused(capsys, run)


def test_a_budget_in_the_wrong_unit(run, capsys):
    assert "'latency<=4MB'" in refused(capsys, run, "--budget", "latency<=4MB")


def test_the_budget_of_compress_toml_lies_beside_the_files_or_in_the_current_folder(run, capsys):
    Path("compress.toml").write_text('[budget]\nlimits = ["1B"]\n')
    assert main(["gate", str(run)]) == 1
    assert main(["gate", str(run / "model.tflite")]) == 1
    (run / "compress.toml").write_text('[budget]\nlimits = ["1MB"]\n')
    assert main(["gate", str(run)]) == 0
    assert main(["gate", str(run / "model.tflite")]) == 0
    assert main(["gate", str(run), "--budget", "1B"]) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[budget]\nlimits = ["4MB"\n', ["line", "column"]),
        ('[budget]\nlimit = ["4MB"]\n', ["budget.limit"]),
        ("[budget]\nlimits = []\n", ["budget.limits"]),
        ('[budget]\nlimits = "4MB"\n', ["budget.limits"]),
        ("", ["budget"]),
        ('[budget]\nlimits = ["4"]\n', ["'4'"]),
    ],
)
def test_a_compress_toml_that_makes_no_sense_is_one_line(run, capsys, text, words):
    (run / "compress.toml").write_text(text)
    line = refused(capsys, run)
    for word in words:
        assert word in line
    assert "'4'" in line or "compress.toml" in line


def test_a_reference_is_named_from_the_folder_of_compress_toml(run, tmp_path):
    (run / "compress.toml").write_text('[budget]\nlimits = ["latency<=1x ../other.onnx"]\n')
    (tmp_path / "other.onnx").write_bytes((run / "model.onnx").read_bytes())
    rules = Rules(("latency<=1x ../other.onnx",), run)
    turns = Turns({"tflite": steady(1), "reference ../other.onnx": steady(2)})
    assert gate(run, rules, take_turns=turns).verdict.passed
    assert turns.files["reference ../other.onnx"].samefile(tmp_path / "other.onnx")


def test_a_reference_that_is_not_there(run, capsys):
    assert "teacher.onnx: no such file to compare with" in refused(
        capsys, run, "--budget", "latency<=0.1x teacher.onnx"
    )


# --- latency


def ratio(run, limit: str, *rounds, **more):
    result = gated(run, limit, take_turns=Turns(*rounds), **more)
    (check,) = result.verdict.checks
    return check, result


def test_a_ratio_is_that_of_the_medians_and_of_the_tflite_file(run):
    reference = f"reference {run / 'model.onnx'}"
    check, _ = ratio(run, f"latency<=0.12x {run / 'model.onnx'}", {"tflite": steady(10), reference: steady(100)})
    assert check.name == f"tflite latency against {run / 'model.onnx'}"
    assert (check.measured, check.passed) == (pytest.approx(0.1), True)
    check, _ = ratio(run, f"latency<=0.09x {run / 'model.onnx'}", {"tflite": steady(10), reference: steady(100)})
    assert (check.passed, check.undecided) == (False, False)


def test_an_absolute_latency_warns_and_a_ratio_does_not(run):
    check, result = ratio(run, "20ms", {"tflite": steady(10)})
    assert (check.measured, check.passed) == (pytest.approx(10), True)
    assert "on shared CI machines a ratio" in result.notes[0]
    assert not gated(run, "1MB").notes


def test_a_limit_inside_the_interval_is_measured_longer_until_it_is_decided(run):
    turns = Turns({"tflite": restless(20)}, {"tflite": restless(20)}, {"tflite": steady(19)})
    (check,) = gated(run, "20ms", take_turns=turns, clock=lambda: turns.now).verdict.checks
    assert check.passed
    assert turns.seconds == [(5, 10), (10, 20), (20, 40)]


def test_what_stays_undecided_within_the_seconds_fails_unless_lenient(run):
    turns = Turns({"tflite": restless(20)})
    result = gated(run, "20ms", take_turns=turns, clock=lambda: turns.now, seconds=16)
    (check,) = result.verdict.checks
    assert (check.passed, check.undecided) == (False, True)
    assert check.low < 20 < check.high
    assert turns.seconds == [(5, 10), (10, 20)]  # 15 seconds, and 20 more do not fit
    assert "still undecided after 15 s" in result.notes[-1]
    (check,) = gated(run, "20ms", take_turns=turns, seconds=1, lenient=True).verdict.checks
    assert (check.passed, check.undecided) == (True, True)
    assert turns.seconds[-1] == (1, 10)


def test_a_latency_clearly_over_is_not_measured_longer(run):
    turns = Turns({"tflite": restless(40)})
    assert not gated(run, "20ms", take_turns=turns, lenient=True).verdict.passed
    assert len(turns.seconds) == 1


def test_real_files_are_timed_side_by_side(run):
    result = gated(run, f"latency<=1000000x {run / 'model.tflite'}", "10000000ms", seconds=0.02)
    assert result.verdict.passed
    assert all(check.low <= check.measured <= check.high for check in result.verdict.checks)


# --- accuracy


def test_iou_is_measured_on_the_labelled_images(run, data):
    """Nine images with IoU 1 and three with 1/2."""
    result = gated(run, "iou>=0.5", data=data)
    assert [check.name for check in result.verdict.checks] == ["onnx IoU", "tflite IoU"]
    assert [check.measured for check in result.verdict.checks] == [0.875, 0.875]
    assert result.verdict.passed
    assert f"IoU is of 12 images in {data}" in result.notes
    assert not gated(run, "iou>=1", data=data).verdict.passed


def test_an_iou_limit_inside_the_interval_is_undecided_and_says_what_helps(run, data):
    result = gated(run / "model.tflite", "iou>=0.85", data=data)
    (check,) = result.verdict.checks
    assert (check.passed, check.undecided) == (False, True)
    assert "more images" in result.notes[-1]
    assert gated(run / "model.tflite", "iou>=0.85", data=data, lenient=True).verdict.passed


def test_a_file_without_a_manifest_has_as_many_classes_as_channels(run, data, tmp_path):
    path = (run / "model.onnx").rename(tmp_path / "alone.onnx")
    (check,) = gated(path, "iou>=0.5", data=data).verdict.checks
    assert check.measured == 0.875


def test_mean_iou_over_classes_is_measured_and_so_is_its_drop(run, data, tmp_path):
    """Halves of an image: the object is 6 of 7.5 where either sees it, the background 4.5 of 6."""
    (check,) = gated(run / "model.tflite", "miou>=0.5", data=data).verdict.checks
    assert (check.name, check.measured) == ("tflite mIoU", pytest.approx((6 / 7.5 + 4.5 / 6) / 2))
    EXPORTERS["tflite"](brightness(threshold=1.01), tmp_path / "blind.tflite")
    (check,) = gated(tmp_path / "blind.tflite", f"miou_drop<=0.01 {run / 'model.tflite'}", data=data).verdict.checks
    assert check.measured == pytest.approx((6 / 7.5 + 4.5 / 6) / 2 - 4.5 / 12 / 2)


def test_what_masks_hold_is_named_beside_the_limits(run, data, capsys):
    for mask in (data / "val/masks").iterdir():
        Image.fromarray(np.asarray(Image.open(mask)) * 7 + 30).save(mask)
    assert "class id 30 in" in refused(capsys, run, "--budget", "iou>=0.5", "--data", data)
    config = '[budget]\nlimits = ["iou>=0.5"]\n[data]\nmasks = { background = 30, %s = 37 }\n'
    (run / "compress.toml").write_text(config % "thing")
    assert "compress.toml: data.masks: 'thing' is no class" in refused(capsys, run, "--data", data)
    (run / "compress.toml").write_text(config % "object")
    assert main(["gate", str(run), "--data", str(data)]) == 0


def test_a_drop_is_paired_by_image_with_the_reference(run, data, tmp_path):
    """A network that takes nothing for bright has IoU 0 where the reference has 1, 1, 1 and 1/2."""
    EXPORTERS["tflite"](brightness(threshold=1.01), tmp_path / "blind.tflite")
    (check,) = gated(tmp_path / "blind.tflite", f"iou_drop<=0.01 {run / 'model.tflite'}", data=data).verdict.checks
    assert (check.measured, check.passed, check.undecided) == (0.875, False, False)
    (check,) = gated(run / "model.onnx", f"iou_drop<=0 {run / 'model.tflite'}", data=data).verdict.checks
    assert (check.measured, check.low, check.passed) == (0, None, True)


def test_a_drop_that_names_no_file_is_against_the_one_that_another_limit_names(run, data, tmp_path):
    EXPORTERS["tflite"](brightness(threshold=1.01), tmp_path / "blind.tflite")
    reference = run / "model.tflite"
    turns = Turns({"tflite": steady(1), f"reference {reference}": steady(1)})
    limits = [f"latency<=1x {reference}", "iou_drop<=0.01"]
    checks = gated(tmp_path / "blind.tflite", *limits, data=data, take_turns=turns).verdict.checks
    assert [check.passed for check in checks] == [True, False]
    assert checks[1].measured == 0.875


def test_a_float_reference_needs_to_be_told_what_it_reads(run, data, tmp_path):
    EXPORTERS["onnx"](brightness(quantized=False), tmp_path / "teacher.onnx")
    limit = f"iou_drop<=0 {tmp_path / 'teacher.onnx'}"
    with pytest.raises(MeasureError, match=r"\[preprocess\]"):
        gated(run, limit, data=data)
    (run / "compress.toml").write_text(f'[budget]\nlimits = ["{limit}"]\n[preprocess]\nmean = [0, 0, 0]\n')
    assert main(["gate", str(run), "--data", str(data)]) == 0


def write_logits(path: Path, **metadata: str) -> Path:
    """One channel of logits, 4 * (brightness - 0.5): 0.4 at 60 % of white, which is the object, though below 0.5."""
    ends = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIZE, SIZE]),
        helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, 1, SIZE, SIZE]),
    ]
    constants = [
        numpy_helper.from_array(np.full((1, 3, 1, 1), 4 / 3, np.float32), "weight"),
        numpy_helper.from_array(np.array([-2], np.float32), "bias"),
    ]
    nodes = [helper.make_node("Conv", ["image", "weight", "bias"], ["map"])]
    graph = helper.make_graph(nodes, "logits", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


PIXELS = {"input_mean": "0 0 0", "input_std": "255 255 255"}


@pytest.fixture
def grey(tmp_path) -> Path:
    """Two images, the upper half at 60 % of white, which is the object, the rest at 20 %."""
    for part in ("images", "masks"):
        (tmp_path / "grey" / "val" / part).mkdir(parents=True)
    image, mask = np.full((SIZE, SIZE, 3), 51, np.uint8), np.zeros((SIZE, SIZE), np.uint8)
    image[: SIZE // 2], mask[: SIZE // 2] = 153, 1
    for name in ("a", "b"):
        Image.fromarray(image).save(tmp_path / "grey" / "val" / "images" / f"{name}.png")
        Image.fromarray(mask).save(tmp_path / "grey" / "val" / "masks" / f"{name}.png")
    return tmp_path / "grey"


def test_a_file_of_logits_is_judged_as_a_bench_measures_it(grey, tmp_path):
    path = write_logits(tmp_path / "logits.onnx", **PIXELS)
    (check,) = gated(path, "iou>=0.5", data=grey).verdict.checks
    record = bench([path], Options(data=grey, threads=1, seconds=0.02))
    assert check.measured == record.files["logits.onnx"].measurement.iou.mean == 1.0


def test_what_a_float_file_states_itself_counts_more_than_its_manifest_and_compress_toml(run, grey):
    for path in run.glob("model.*"):
        path.unlink()
    write_logits(run / "model.onnx", **PIXELS)
    write_manifest(run)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["files"][0]["input"] = {"mean": [0, 0, 0], "std": [2550, 2550, 2550]}
    (run / "manifest.json").write_text(json.dumps(manifest))
    rules = Rules(("iou>=0.5",), mean=(0.0,) * 3, std=(1.0,) * 3)
    assert gate(run, rules, data=grey).verdict.checks[0].measured == 1.0
    write_logits(run / "model.onnx")  # which states nothing: the manifest counts, by which nothing is bright
    write_manifest(run, files=[manifest["files"][0] | {"sha256": sha256_of(run / "model.onnx")}])
    assert gate(run, rules, data=grey).verdict.checks[0].measured == 0.0


def test_without_data_iou_comes_from_the_report_of_the_very_file_and_says_so(run):
    result = gated(run, "iou>=0.86", "iou_drop<=0.01")
    assert [check.measured for check in result.verdict.checks] == [0.9, 0.9, 0.005, 0.005]
    assert result.verdict.passed
    assert "report.json, which describes this very file" in result.notes[0]
    assert sum("its sum is not in manifest.json" in note for note in result.notes) == 1


def test_a_report_is_the_one_that_the_manifest_has_the_sum_of(run, capsys):
    described = {"file": "report.json", "sha256": sha256_of(run / "report.json")}
    write_manifest(run, report=described)
    result = gated(run, "iou>=0.86")
    assert result.verdict.passed
    assert len(result.notes) == 2
    report = (run / "report.json").read_text()
    (run / "report.json").write_text(report.replace("0.9,", "0.91,"))
    assert "is not the report that was written" in refused(capsys, run, "--budget", "iou>=0.86")
    assert "is not the report that was written" in refused(capsys, run / "model.onnx", "--budget", "iou>=0.86")
    files = json.loads((run / "manifest.json").read_text())["files"]
    write_manifest(run, report=described, files=[file | {"sha256": "0" * 64} for file in files])
    assert "is not the report that was written" in refused(capsys, run / "model.onnx", "--budget", "iou>=0.86")
    write_manifest(run, report=described | {"file": "other.json"})
    assert "report.json and its sha256 are expected" in refused(capsys, run, "--budget", "1MB")
    write_manifest(run, report=described)
    (run / "report.json").unlink()
    assert gated(run, "1MB").verdict.passed


@pytest.mark.parametrize(
    ("iou", "word"),
    [
        ({"mean": 5.0, "low": 4, "high": 6}, "iou.mean: 5.0 is not within 0 to 1"),
        ({"mean": "0.99", "low": 0.9, "high": 1}, "a number is expected, not '0.99'"),
        ({"mean": True, "low": 0.9, "high": 1}, "a number is expected, not True"),
        ({"mean": 0.95, "low": 1, "high": 0.9}, "low: 1 is above high"),
        ({"mean": 0.99, "low": 0.8, "high": 0.9}, "is not within low and high"),
        ({"mean": 0.99}, "mean, low and high are expected"),
        (0.99, "mean, low and high are expected"),
        ({"mean": float("inf"), "low": 0.9, "high": 1}, "Infinity"),
        ({"mean": 10**30, "low": 0.9, "high": 1}, "not within"),
    ],
)
def test_a_report_of_what_cannot_have_been_measured_is_refused(run, capsys, iou, word):
    document = json.loads((run / "report.json").read_text())
    document["measurements"]["onnx"]["iou"] = iou
    (run / "report.json").write_text(json.dumps(document))
    assert word in refused(capsys, run, "--budget", "iou>=0.86")
    assert word in refused(capsys, run / "model.onnx", "--budget", "iou>=0.86")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"size_bytes": 1}, "but the file has"),
        ({"size_bytes": True}, "a number is expected"),
        ({"latency": {"p50_ms": -1, "p90_ms": 1}}, "latency.p50_ms: -1 is no duration"),
        ({"latency": []}, "latency: a table is expected"),
        ({"per_image_iou": [0.9, 0.1]}, "but the images' mean is 0.5"),
        ({"speedup": {"mean": 0, "low": 0, "high": 0}}, "speedup.mean"),
    ],
)
def test_so_is_one_whose_other_figures_cannot_be_of_these_files(run, capsys, change, word):
    document = json.loads((run / "report.json").read_text())
    document["measurements"]["onnx"] |= change
    (run / "report.json").write_text(json.dumps(document))
    assert word in refused(capsys, run, "--budget", "iou>=0.86")


def test_a_report_of_another_file_says_nothing(run):
    EXPORTERS["tflite"](brightness(threshold=0.6), run / "model.tflite")
    write_manifest(run)
    with pytest.raises(MeasureError, match=r"describes another file; give --data"):
        gated(run, "iou>=0.86")


def test_without_report_and_data_iou_cannot_be_judged(run):
    (run / "report.json").unlink()
    with pytest.raises(MeasureError, match=r"not measured; give --data"):
        gated(run, "iou>=0.86")


def test_a_report_that_is_none_is_one_line(run):
    (run / "report.json").write_text('{"artifacts": []}')
    with pytest.raises(DataError, match="not a report of compress run"):
        gated(run, "iou>=0.86")


def test_files_of_different_tasks_are_not_compared(run, data, tmp_path):
    graph = brightness()
    conv, softmax = graph.operators
    three = {
        name: np.concatenate([getattr(conv, name), getattr(conv, name)[:1]])
        for name in ("weight", "weight_scale", "bias")
    }
    tensors = {name: replace(spec, shape=(1, 3, SIZE, SIZE)) for name, spec in graph.tensors.items()}
    other = replace(graph, tensors=tensors, operators=(replace(conv, **three), softmax))
    EXPORTERS["tflite"](other, tmp_path / "three.tflite")
    with pytest.raises(MeasureError, match="3 classes, others have 2"):
        gated(run, f"iou_drop<=0.1 {tmp_path / 'three.tflite'}", data=data)


def test_a_folder_without_images_is_one_line(run, tmp_path, capsys):
    assert "no images to measure on" in refused(capsys, run, "--budget", "iou>=0.5", "--data", tmp_path / "cwd")


# --- multiply-accumulates


def test_multiply_accumulates_are_counted_from_every_file(run, capsys):
    """64 pixels, 2 classes, 3 colours."""
    checks = gated(run, "macs<=384").verdict.checks
    assert [(check.name, check.measured, check.passed) for check in checks] == [
        ("onnx MACs", 384, True),
        ("tflite MACs", 384, True),
    ]
    assert main(["gate", str(run), "--budget", "macs<=0.383K"]) == 1
    assert "onnx MACs    384       383    over budget" in capsys.readouterr().out


def test_a_file_whose_multiply_accumulates_are_not_known_does_not_pass(run, monkeypatch):
    def uncounted(self):
        raise MeasureError("model.onnx: its multiply-accumulates cannot be counted: what a GRU multiplies is not known")

    monkeypatch.setattr("compress.runtime.local.Child.macs", uncounted)
    result = gated(run / "model.onnx", "macs<=900G")
    assert [(check.measured, check.passed) for check in result.verdict.checks] == [(None, False)]
    assert "what a GRU multiplies is not known" in result.notes[0]


# --- what CI reads


def test_the_change_since_the_base_branch_is_stated(run, tmp_path):
    size_bytes = (run / "model.tflite").stat().st_size
    base = write_report(run, size_bytes=size_bytes * 2).rename(tmp_path / "base.json")
    text = base.read_text()
    base.write_text(text.replace('"latency"', '"macs": 768, "latency"'))
    write_report(run)
    result = gated(run, "1MB", "iou>=0.86", "macs<=1K", base=base)
    assert result.base["onnx", "macs", None] == 768
    assert "-50.0 % (768)" in gate_table(result)
    assert result.base["tflite", "size", None] == 2 * size_bytes
    assert result.base["tflite", "iou", None] == 0.9


def test_a_base_that_is_not_there_is_a_remark(run, capsys):
    assert main(["gate", str(run), "--budget", "1MB", "--base", "none.json"]) == 0
    out = capsys.readouterr().out
    assert "none.json: no such report of a base branch" in out
    assert "since base" not in out


@pytest.mark.parametrize("content", ["", "[]", '{"measurements": 5}', '{"measurements": {}, "artifacts": [5]}'])
def test_a_base_that_is_no_report_is_one_line(run, tmp_path, capsys, content):
    (tmp_path / "base.json").write_text(content)
    assert "not a report" in refused(capsys, run, "--budget", "1MB", "--base", tmp_path / "base.json")


def test_a_gate_that_cannot_run_leaves_everything_that_ci_reads(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (tmp_path / "page.onnx").write_text("<html>404</html>")
    paths = {kind: tmp_path / f"gate.{kind}" for kind in ("json", "junit", "markdown")}
    options = [text for kind, path in paths.items() for text in (f"--{kind}", str(path))]
    assert main(["gate", str(tmp_path / "page.onnx"), "--budget", "1MB", *options]) == 2
    document = json.loads(paths["json"].read_text())
    assert (document["passed"], document["headline"]) == (False, "could not be judged")
    root = ElementTree.parse(paths["junit"]).getroot()
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("1", "0", "1")
    assert "an HTML page" in root.find(".//error").text
    assert "could not be judged" in paths["markdown"].read_text()
    captured = capsys.readouterr()
    assert captured.out.startswith("::error title=compress gate::could not be judged: ")
    assert len(captured.err.splitlines()) == 1


def test_so_does_one_without_a_budget(run, tmp_path, capsys):
    refused(capsys, run, "--junit", tmp_path / "gate.xml")
    assert "no budget" in ElementTree.parse(tmp_path / "gate.xml").find(".//error").get("message")


def test_a_result_is_not_written_over_what_is_no_file(run, tmp_path, capsys):
    os.mkfifo(tmp_path / "fifo")
    assert main(["gate", str(run), "--budget", "1MB", "--json", str(tmp_path / "fifo")]) == 2
    assert "is a FIFO, not a file" in capsys.readouterr().err
    assert (tmp_path / "fifo").is_fifo()


def test_json_on_standard_output_is_nothing_else(run, capsys):
    assert main(["gate", str(run), "--budget", "100B", "--json", "-"]) == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["passed"], document["headline"]) == (False, "over budget")
    assert {check["name"] for check in document["checks"]} == {"onnx size", "tflite size"}
    assert "over budget" in captured.err


def test_the_files_that_ci_reads_are_written_and_github_gets_annotations(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    paths = {kind: tmp_path / f"gate.{kind}" for kind in ("json", "junit", "markdown")}
    options = [text for kind, path in paths.items() for text in (f"--{kind}", str(path))]
    assert main(["gate", str(run), "--budget", "100B", *options]) == 1
    assert json.loads(paths["json"].read_text())["passed"] is False
    assert ElementTree.parse(paths["junit"]).getroot().get("failures") == "2"
    assert "over budget" in paths["markdown"].read_text()
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("::error title=compress gate::") for line in lines) == 2


@pytest.mark.parametrize("flag", ["--json", "--junit", "--markdown"])
def test_a_result_that_cannot_be_written_loses_neither_the_verdict_nor_the_other_files(run, tmp_path, capsys, flag):
    flags = {"--json": tmp_path / "a", "--junit": tmp_path / "b", "--markdown": tmp_path / "c"}
    flags |= {flag: tmp_path / "no" / "such" / "place"}
    options = [str(word) for pair in flags.items() for word in pair]
    assert main(["gate", str(run), "--budget", "100B", *options]) == 2
    captured = capsys.readouterr()
    assert "over budget" in captured.out
    (line,) = captured.err.splitlines()
    assert "place: cannot be written" in line
    assert line.endswith(f"choose another folder with {flag}")
    assert sum((tmp_path / name).is_file() for name in "abc") == 2


@pytest.fixture
def releases(tmp_path):
    """A repository with the project's Makefile and two releases, and what `make gate` in it says and gates."""
    root = tmp_path / "repository"
    for name in ("one", "two"):
        (root / "export" / name).mkdir(parents=True)
        for file in ("manifest.json", "compress.toml"):
            (root / "export" / name / file).write_text("")
    shutil.copy(ROOT / "Makefile", root)
    (root / "compress").write_text('#!/bin/sh\necho "$@"\n! grep -q over "$2/compress.toml"\n')
    (root / "compress").chmod(0o755)
    subprocess.run(["git", "init", "--quiet", root], check=True)

    def make_gate() -> subprocess.CompletedProcess:
        subprocess.run(["git", "-C", root, "add", "--all"], check=True)
        command = ["make", "--no-print-directory", "-C", root, "gate", "BIN=.", "-o", ".venv/.installed"]
        return subprocess.run(command, capture_output=True, text=True)

    return root / "export", make_gate


def test_every_release_is_gated(releases):
    export, make_gate = releases
    done = make_gate()
    assert (done.returncode, done.stdout.split()) == (0, ["gate", "export/one/", "gate", "export/two/"])
    (export / "one" / "compress.toml").write_text("over")
    assert make_gate().returncode


def test_a_release_without_its_budget_or_its_files_fails_and_none_at_all_is_said(releases):
    export, make_gate = releases
    (export / "two" / "compress.toml").unlink()
    done = make_gate()
    assert done.returncode
    assert "export/two/ has no compress.toml" in done.stderr
    (export / "two" / "manifest.json").unlink()
    (export / "one" / "manifest.json").unlink()
    assert make_gate().stdout.split() == ["gate", "export/one/"]  # which then names the missing manifest
    (export / "one" / "compress.toml").unlink()
    done = make_gate()
    assert (done.returncode, done.stdout) == (0, "")
    assert "no release under export/ is committed" in done.stderr


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_seconds_that_are_none(run, capsys, seconds):
    with pytest.raises(SystemExit) as caught:
        main(["gate", str(run), "--budget", "1MB", f"--seconds={seconds}"])
    assert caught.value.code == 2
    assert "--seconds" in capsys.readouterr().err
