"""What a user sees: exit codes, one line on stderr, nothing left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import TinyNet
from torch import nn

from compress.cli import main
from compress.errors import WriteError


@pytest.fixture
def model(tiny_model, tmp_path):
    """A copy that a test may break."""
    for suffix in (".pt", ".toml", ".py"):
        (tmp_path / f"tiny{suffix}").write_bytes(tiny_model.with_suffix(suffix).read_bytes())
    return tmp_path / "tiny.pt"


def refused(capsys, out, *arguments) -> str:
    """The one line of a command that must exit with 2 and leave no output folder."""
    assert main([*map(str, arguments), *(["--out", str(out)] if out else [])]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("compress: ")]
    assert len(lines) == 1
    assert out is None or not out.exists()
    return lines[0]


@pytest.mark.parametrize("budget", ["4", "4XB", "-1MB", "0", "0MB", "MB", "four"])
def test_a_budget_that_is_no_size(model, tiny_data, tmp_path, capsys, budget):
    line = refused(capsys, tmp_path / "out", "run", model, "--data", tiny_data, f"--budget={budget}")
    assert budget in line
    assert "4MB" in line


def test_no_budget_at_all(model, tiny_data, tmp_path, capsys):
    assert "--budget" in refused(capsys, tmp_path / "out", "run", model, "--data", tiny_data)


def test_a_budget_that_no_width_can_meet_names_the_smallest(model, tiny_data, tmp_path, capsys):
    line = refused(capsys, tmp_path / "out", "run", model, "--data", tiny_data, "--budget", "1KB")
    assert "smallest possible" in line


def test_a_missing_model(model, tmp_path, capsys):
    model.unlink()
    assert "tiny.pt: no such file" in refused(
        capsys, tmp_path / "out", "run", model, "--budget", "4MB", "--data", tmp_path
    )


@pytest.mark.parametrize(("content", "message"), [(b"", "empty"), (b"not a model at all", "torch file")])
def test_a_file_that_is_no_model(model, tiny_data, capsys, content, message):
    model.write_bytes(content)
    assert message in refused(capsys, None, "inspect", model)


def test_a_truncated_model(model, capsys):
    model.write_bytes(model.read_bytes()[:2000])
    assert "tiny.pt" in refused(capsys, None, "inspect", model)


def test_weights_of_another_architecture(model, capsys):
    torch.save({"conv.weight": torch.zeros(1)}, model)
    assert "does not fit" in refused(capsys, None, "inspect", model)


def test_a_pickled_module_is_refused_unless_trusted(model, capsys):
    sys.path.insert(0, str(model.parent))
    from tiny import TinyNet

    torch.save(TinyNet(), model)
    assert "--trust-pickle" in refused(capsys, None, "inspect", model)
    assert main(["inspect", str(model), "--trust-pickle"]) == 0


def test_a_pickle_that_would_run_code_does_not_run_it(model, tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "was here",))

    torch.save({"state_dict": Evil()}, model)
    refused(capsys, None, "inspect", model)
    assert not (tmp_path / "was here").exists()


def test_a_missing_recipe(model, capsys):
    model.with_suffix(".toml").unlink()
    assert "--recipe" in refused(capsys, None, "inspect", model)


def test_malformed_toml_is_located(model, capsys):
    model.with_suffix(".toml").write_text('name = "tiny"\n[model\n')
    assert "line 2" in refused(capsys, None, "inspect", model)


def test_an_unknown_key_is_named(model, capsys):
    recipe = model.with_suffix(".toml")
    recipe.write_text(recipe.read_text() + "\nseconds_ = 3\n")
    assert "measure.seconds_" in refused(capsys, None, "inspect", model)


def test_no_images(model, tmp_path, capsys):
    assert "--data" in refused(capsys, tmp_path / "out", "run", model, "--budget", "20KB")


def test_an_empty_val(model, tiny_data, tmp_path, capsys):
    data = tmp_path / "data"
    (data / "train" / "images").mkdir(parents=True)
    (data / "train" / "masks").mkdir()
    Image.new("RGB", (64, 64)).save(data / "train" / "images" / "a.png")
    Image.new("L", (64, 64)).save(data / "train" / "masks" / "a.png")
    assert "val" in refused(capsys, tmp_path / "out", "run", model, "--budget", "20KB", "--data", data)


def test_an_output_folder_that_cannot_be_written(model, tiny_data, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "out"
    assert main(["run", str(model), "--budget", "20KB", "--data", str(tiny_data), "--out", str(out)]) == 2
    assert "--out" in capsys.readouterr().err


def test_a_full_disk_is_one_line(model, tiny_data, tmp_path, capsys, monkeypatch):
    def full(self, data):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["run", str(model), "--budget", "20KB", "--data", str(tiny_data), "--out", str(tmp_path / "out")]) == 2
    assert "No space left" in capsys.readouterr().err


def test_an_unknown_format(model, tiny_data, tmp_path, capsys):
    line = refused(
        capsys, tmp_path / "out", "run", model, "--budget", "9KB", "--data", tiny_data, "--formats", "coreml"
    )
    assert "formats" in line


def flags_of(command, capsys) -> set[str]:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return set(re.findall(r"--[a-z-]+", capsys.readouterr().out))


def test_an_error_names_no_flag_of_another_command(model, tiny_data, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    nowhere = tmp_path / "file" / "nowhere"
    release = Path(__file__).parent.parent / "export" / "u2net-1mb"
    other = tmp_path / "alone.pt"
    other.write_bytes(model.read_bytes())
    images = tiny_data / "val" / "images"
    mining = ["mine", "--teacher", model, "--unlabelled", images]
    cases = [
        ["run", model, "--budget", "20KB", "--data", tiny_data, "--out", nowhere],
        ["report", release, "--out", nowhere],
        ["report", release, release, "--out", nowhere],
        [*mining, "--student", model, "--out", nowhere],
        [*mining, "--student", other, "--out", tmp_path / "out"],
        *(["gate", release, "--budget", "2MB", flag, nowhere] for flag in ("--json", "--junit", "--markdown")),
    ]
    for case in cases:
        flags = flags_of(case[0], capsys)
        assert main([str(word) for word in case]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("compress: ")]
        assert set(re.findall(r"--[a-z-]+", line)) <= flags, line


def test_a_full_disk_names_no_flag_that_verify_has_not(capsys, monkeypatch):
    def full(self, data):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["verify", str(Path(__file__).parent.parent / "export" / "u2net-1mb")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "No space left" in line
    assert "--" not in line


def test_a_resumed_run_is_not_told_to_give_out_which_it_refuses(tmp_path, capsys, monkeypatch):
    def full(out, **options):
        raise WriteError(f"{out}: cannot be written; choose another folder")

    monkeypatch.setattr("compress.pipeline.run.resume", full)
    assert main(["run", "--resume", str(tmp_path)]) == 2
    assert "--out" not in capsys.readouterr().err


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("command", "place"),
    [
        (["bench", "a.onnx"], "compress.judge.bench.bench"),
        (["run", "--resume", "a run"], "compress.pipeline.run.resume"),
        (["run", "tiny.pt", "--out", "a run"], "compress.pipeline.run.run"),
    ],
)
def test_a_stopped_command_says_how_a_run_goes_on_where_one_can(command, place, finished, model, capsys, monkeypatch):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.chdir(model.parent)
    if finished:
        (model.parent / "a run" / "checkpoints").mkdir(parents=True)
        (model.parent / "a run" / "checkpoints" / "run.json").touch()
    monkeypatch.setattr(place, stopped)
    assert main(command) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    kept = "; what is finished is kept: go on with compress run --resume 'a run'"
    assert said == "compress: stopped" + (kept if finished and command[0] == "run" else "")


@pytest.mark.parametrize("command", ["run", "inspect"])
def test_a_mistyped_model_is_said_to_be_the_model(command, tmp_path, capsys):
    assert refused(capsys, None, command, tmp_path / "foo.pt").startswith(f"compress: {tmp_path / 'foo.pt'}: no such")
    assert "is no file" in refused(capsys, None, command, tmp_path)


def test_a_budget_without_a_size_is_asked_for_one(model, tiny_data, tmp_path, capsys):
    flags = ["--budget", "20ms", "--budget", "iou>=0.5"]
    line = refused(capsys, tmp_path / "out", "run", model, "--data", tiny_data, *flags)
    assert line.endswith("--budget 20ms --budget 'iou>=0.5' --budget 4MB")


def test_what_torch_says_of_a_model_that_it_cannot_trace_is_not_shown(model, capsys):
    text = model.with_suffix(".py").read_text().replace("return self.head(merged)", "return merged[merged > 0]")
    model.with_suffix(".py").write_text(text)
    assert main(["inspect", str(model)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("compress: ")


def test_python_runs_the_package_as_the_command():
    done = subprocess.run([sys.executable, "-m", "compress", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "compress")


def test_inspect_says_what_it_is(model, capsys):
    assert main(["inspect", str(model)]) == 0
    text = capsys.readouterr().out
    assert "can be pruned: yes, 5 of 7 channel groups" in text
    assert f"{4 * (32 * 3 + 3):,}            {3 * (8 + 13)}  head: class map" in text
    assert "smallest budget: about 9,163 bytes" in text
    assert "operators: 22: conv 8, relu 7, " in text
    merge = 9 * 40 * 32 * 64 * 64
    assert f"{merge / 1e6:.1f}  merge" in text


def test_inspect_lists_all_that_is_not_known_and_what_is(model, tmp_path, capsys):
    net = TinyNet()
    net.head = nn.Sequential(net.head, Sorted())
    path = tmp_path / "odd.pt2"
    torch.export.save(torch.export.export(net.eval(), (torch.zeros(1, 3, 64, 64),)), path)
    assert main(["inspect", str(path)]) == 2
    said = capsys.readouterr()
    assert len([line for line in said.err.splitlines() if line.startswith("compress: ")]) == 1
    lines = said.out.splitlines()
    assert lines[0].startswith("odd.pt2: operators that are known: conv ")
    assert lines[1] == "not known, 2:"
    assert ["cumsum" in lines[2], "sort" in lines[3]] == [True, True]
    assert "docs/operators.md" in lines[-1]


class Sorted(nn.Module):
    def forward(self, x):
        return torch.relu(x.cumsum(2)).sort(2)[0]


def test_interrupting_ends_the_run_and_leaves_no_half_file(model, tiny_data, tmp_path, heeds_ctrl_c):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "compress.cli", "run", str(model), "--budget", "20KB", "--data", str(tiny_data)]
    process = subprocess.Popen([*command, "--minutes", "5", "--out", str(out)], stderr=subprocess.PIPE, text=True)
    while not (out / "checkpoints" / "repair.pt").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130
    assert "Traceback" not in said
    assert (out / "checkpoints" / "repair.pt").exists()
    assert not list(out.rglob("*.partial"))
