"""`compress sweep` as a user types it."""

import os
import subprocess
import sys
import time

import pytest
from pretend import Here

from compress import cli
from compress.cli import main


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "n.pt"
    path.write_bytes(b"weights")
    return path


def said(arguments, capsys) -> tuple[int, str]:
    code = main([*map(str, arguments)])
    return code, capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "no size to plan for: give some, such as --budget 1MB,2MB,4MB"),
        (["--budget", "1MB,,x"], "--budget 1MB,,x: there is no value between two commas"),
        (["--budget", "1MB,1MB"], "name each value once"),
        (["--budget", "1MB", "--macs-share", "0.4:0.1", "--trials", "2"], "the lowest share, then a higher one"),
        (["--budget", "1MB", "--trials", "0"], "--trials 0: from 1"),
        (["--budget", "1MB", "--ray-address", "head:6379"], "--ray-address goes with --executor ray"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_no_folder(model, tmp_path, capsys, flags, says):
    code, line = said(["sweep", model, *flags, "--out", tmp_path / "out"], capsys)
    assert code == 2
    assert says in line
    assert "\n" not in line
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_there(tmp_path, capsys):
    code, line = said(["sweep", tmp_path / "no.pt", "--budget", "1MB", "--out", tmp_path / "out"], capsys)
    assert code == 2
    assert "no.pt: no such file" in line


def test_it_is_not_one_of_several_processes(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, line = said(["sweep", model, "--budget", "1MB", "--out", tmp_path / "out"], capsys)
    assert code == 2
    assert "leave torchrun out" in line


@pytest.mark.parametrize(("package", "extra"), [("ray", "ray"), ("optuna", "sweep")])
def test_a_package_that_is_not_installed_is_named_with_its_extra(model, tmp_path, package, extra):
    code = f"import sys; sys.modules['{package}'] = None; from compress.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["sweep", str(model), "--budget", "1MB", "--executor", "ray", "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"needs {package}: pip install 'compress-mobile[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("limit", "code"), [("iou>=0.5", 0), ("iou>=0.99", 1)])
def test_the_exit_code_says_whether_a_trial_meets_all_limits(model, tmp_path, capsys, monkeypatch, limit, code):
    monkeypatch.setattr(cli, "_executor", lambda *_: Here())
    out = tmp_path / "out"
    arguments = ["sweep", model, "--budget", "1MB,2MB", "--budget", limit, "--out", out]
    assert main([*map(str, arguments)]) == code
    text = capsys.readouterr().out
    assert f"report: {out / 'sweep.html'}" in text
    if code == 0:
        assert f"the smallest that meets all limits: 1mb, in {out / 'trials' / '1mb'}" in text
        assert f"compress publish {out / 'trials' / '1mb'} --to REGISTRY" in text
    else:
        assert "no trial meets all limits" in text


def test_every_run_is_given_what_was_given_with_paths_from_the_root(model, tmp_path, monkeypatch):
    here = Here()
    monkeypatch.setattr(cli, "_executor", lambda *_: here)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text("")
    flags = ["--data", "photos", "--teacher", "a.pt", "--teacher", "b.pt", "--tta", "flip,scale", "--minutes", "3"]
    flags += ["--controls", "--keep-float", "head", "--formats", "tflite", "--size", "64x32", "--mean", "0.5,0.5,0.5"]
    flags += ["--arch", "code/net.py:Net(width=2)", "--recipe", "own.toml", "--trust-pickle", "--seeds", "1"]
    main(["sweep", "n.pt", "--budget", "1MB", *flags, "--out", "out"])
    (job,) = here.jobs
    options = cli._parser().parse_args(list(job.arguments))
    assert options.model == model
    assert options.data == tmp_path / "photos"
    assert options.teacher == [tmp_path / "a.pt", tmp_path / "b.pt"]
    assert options.arch == f"{tmp_path}/code/net.py:Net(width=2)"
    assert options.recipe == tmp_path / "own.toml"
    assert (options.tta, options.formats, options.keep_float) == (["flip", "scale"], ["tflite"], ["head"])
    assert (options.minutes, options.size, options.mean) == (3.0, (64, 32), (0.5, 0.5, 0.5))
    assert (options.controls, options.trust_pickle, options.seed, options.budget) == (True, True, 0, ["1MB"])
    assert options.out == tmp_path / "out" / "trials" / "1mb-s0"


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_to_the_files_of_single_runs(tiny_model, tiny_data, tmp_path):
    """Two trials, the driver killed in the middle; then the same two by themselves, each with a cache of its own."""
    given = [str(tiny_model), "--data", str(tiny_data), "--macs-share"]

    def command(*arguments: str, cache: str) -> subprocess.Popen[bytes]:
        place = {**os.environ, "COMPRESS_CACHE": str(tmp_path / cache), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([sys.executable, "-m", "compress", *arguments], env=place, stderr=subprocess.DEVNULL)

    out = tmp_path / "sweep"
    swept = ["sweep", *given, "0.3,0.5", "--budget", "30KB", "--cpus", "1", "--out", str(out)]
    first = command(*swept, cache="shared")
    for _ in range(1200):
        if list(out.glob("trials/*/checkpoints/plan.pt")):
            break
        time.sleep(0.1)
    first.kill()
    first.wait()
    assert command(*swept, cache="shared").wait() == 0
    for share in ("0.3", "0.5"):
        alone = tmp_path / share
        assert command("run", *given, share, "--budget", "30KB", "--out", str(alone), cache=share).wait() == 0
        for name in ("model.onnx", "model.tflite"):
            assert (alone / name).read_bytes() == (out / "trials" / f"30kb-m{share}" / name).read_bytes()
