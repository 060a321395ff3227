import os
import subprocess
import sys
import zipfile
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
    subprocess.run([*build, "--wheel-dir", str(folder), str(copy)], check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_installs_nothing_but_compress(wheel_names):
    top_level = {name.partition("/")[0] for name in wheel_names}
    assert {name for name in top_level if not name.endswith(".dist-info")} == {"compress"}


def test_the_wheel_carries_the_reports_template_and_every_module(wheel_names):
    assert "compress/report/report.html" in wheel_names
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "compress").rglob("*.py")}
    assert modules <= set(wheel_names)


def test_importing_the_command_imports_nothing_heavy():
    code = "import sys, compress.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert HEAVY & set(run.stdout.split()) == set()


def test_help_names_the_commands():
    code = "import sys; from compress.cli import main; sys.exit(main(['--help']))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "run" in run.stdout.split()
    assert "inspect" in run.stdout.split()


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
