import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "onnx", "onnxruntime", "ai_edge_litert", "numpy", "PIL", "jinja2", "pydantic"}


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory) -> list[str]:
    """Names inside the wheel, built offline from a copy, so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    copy.mkdir()
    for name in ("compress", "models", "benchmarks", "export", "tests", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            (copy / name).symlink_to(ROOT / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(copy)], check=True)
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_installs_nothing_but_compress(wheel_names):
    top_level = {name.partition("/")[0] for name in wheel_names}
    assert {name for name in top_level if not name.endswith(".dist-info")} == {"compress"}


def test_the_wheel_carries_the_reports_template_and_every_module(wheel_names):
    assert {"compress/report/report.html", "compress/report/card.md"} <= set(wheel_names)
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "compress").rglob("*.py")}
    assert modules <= set(wheel_names)


def test_the_wheel_says_that_it_has_types(wheel_names):
    assert "compress/py.typed" in wheel_names


def declared(part: list[str]) -> set[str]:
    return {re.split("[<>=]", one)[0].lower() for one in part}


def imported() -> dict[str, set[str]]:
    """Distributions that modules of the package import, each with the modules that do."""
    homes, found = packages_distributions(), {}
    for path in (ROOT / "compress").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for top in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"compress"}:
                for distribution in homes[top]:
                    found.setdefault(distribution.lower(), set()).add(str(path.relative_to(ROOT)))
    return found


def test_every_package_that_the_code_imports_is_declared_and_none_besides():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    light, train = declared(project["dependencies"]), declared(extras["train"])
    sign = declared(extras["sign"]) - {"pyopenssl"}  # which model-signing imports and does not declare
    sweep, ray = declared(extras["sweep"]), declared(extras["ray"]) - {"compress-mobile[sweep]"}
    assert set(imported()) == light | train | sign | sweep | ray
    assert light & train == set()


def test_importing_the_command_imports_nothing_heavy():
    code = "import sys, compress.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert HEAVY & set(run.stdout.split()) == set()


def test_help_names_the_commands():
    code = "import sys; from compress.cli import main; sys.exit(main(['--help']))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "run" in run.stdout.split()
    assert "inspect" in run.stdout.split()


WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from compress.cli import main; sys.exit(main(sys.argv[1:]))"


def without_torch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command in a process that finds no torch, as after the light install."""
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("command", ["run", "inspect", "verify", "mine"])
def test_a_command_that_needs_torch_says_what_to_install(tiny_model, tiny_data, tmp_path, command):
    arguments = {
        "run": [tiny_model, "--budget", "4MB", "--data", tiny_data, "--out", tmp_path / "out"],
        "inspect": [tiny_model],
        "verify": [ROOT / "export" / "u2net-1mb"],
        "mine": ["--teacher", tiny_model, "--student", ROOT / "export" / "u2net-1mb" / "model.tflite"]
        + ["--unlabelled", tiny_data / "unlabelled", "--out", tmp_path / "mined"],
    }[command]
    done = without_torch(command, *arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "compress: this command needs torch, which the light install leaves out: pip install 'compress-mobile[train]'"
    )
    assert "Traceback" not in done.stderr


def test_gate_bench_and_report_need_no_torch(tmp_path):
    release = shutil.copytree(ROOT / "export" / "u2net-1mb", tmp_path / "release")
    for arguments in (["gate", release], ["bench", release / "model.tflite", "--seconds", "0.1"], ["report", release]):
        done = without_torch(*arguments)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_light_install_gates_a_release_and_brings_no_torch(tmp_path):
    """A fresh environment, as a CI has it: pip needs an index, which may be a local one."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("compress", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    install = [home / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--constraint", ROOT / "constraints.txt", source], check=True)
    gated = subprocess.run([home / "bin" / "compress", "gate", ROOT / "export" / "u2net-1mb"], cwd=tmp_path)
    assert gated.returncode == 0
    assert not list(home.glob("lib/python*/site-packages/torch*"))
    refused = subprocess.run(
        [home / "bin" / "compress", "verify", ROOT / "export" / "u2net-1mb"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (refused.returncode, "compress-mobile[train]" in refused.stderr) == (2, True)


IMPORTS = """
import os
before = dict(os.environ)
import pkgutil, importlib, compress
for module in pkgutil.walk_packages(compress.__path__, "compress."):
    importlib.import_module(module.name)
    assert dict(os.environ) == before, module.name
print(len(list(pkgutil.walk_packages(compress.__path__, "compress."))))
"""


def test_importing_any_module_leaves_the_environment_as_it_was():
    run = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 80


def test_what_the_user_says_to_onednn_stays(monkeypatch):
    from compress.machine import prepare_process

    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    prepare_process()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"
