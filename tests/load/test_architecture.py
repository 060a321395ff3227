"""The code that makes a module."""

import pytest
from torch import nn

from compress.errors import ModelError
from compress.load.architecture import made

CODE = """
import neighbour
from torch import nn

class Net(nn.Conv2d):
    def __init__(self, channels=3, kernel=neighbour.KERNEL):
        super().__init__(3, channels, kernel)

def fetches():
    raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")

def leaves():
    raise SystemExit(3)

def number():
    return 3
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.py").write_text(CODE)
    (tmp_path / "neighbour.py").write_text("KERNEL = 5\n")
    return tmp_path


def test_a_file_may_import_its_neighbours(folder):
    assert made(folder, "net.py:Net").kernel_size == (5, 5)


def test_arguments_are_plain_values(folder):
    module = made(folder, "net.py:Net(channels=7, kernel=(1, 3))")
    assert (module.out_channels, module.kernel_size) == (7, (1, 3))


def test_an_installed_package_makes_one_too(tmp_path):
    assert isinstance(made(tmp_path, "torch.nn:Conv2d(in_channels=3, out_channels=2, kernel_size=1)"), nn.Conv2d)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("net.py:Net(channels=__import__('os').getpid())", "plain values after the colon"),
        ("net.py:Net(7)", "plain values"),
        ("net.py:Net.forward(x=1)", "plain values"),
        ("net.py:Net(channels=1) or 2", "plain values"),
        ("net.py:Net(depth=2)", "TypeError"),
        ("net.py:Other", "has no attribute 'Other'"),
        ("net.py:number", "gives a int"),
        ("net.py:fetches", "wants to download something"),
        ("net.py:leaves", r"leaves\(\) failed: SystemExit: 3"),
        ("gone.py:Net", "no such file"),
        ("../net.py:Net", "outside the recipe's folder"),
        ("no_such_package:Net", "No module named"),
    ],
)
def test_what_makes_no_module_is_one_line(folder, architecture, message):
    with pytest.raises(ModelError, match=message) as raised:
        made(folder, architecture)
    assert "\n" not in str(raised.value)
