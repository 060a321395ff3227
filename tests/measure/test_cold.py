"""Launches, and bytes on the way to a phone."""

import io
import zipfile

import numpy as np
import pytest

from compress.measure.cold import deflated_bytes, launch
from compress.measure.values import Cold


class FakeChild:
    """Every launch takes a millisecond more than the last; the first inference ten, the others one."""

    log: list[str] = []

    def __init__(self, path, threads):
        self.log.append(path)
        self.load_ms = float(len(self.log))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def time(self, runs):
        return [10.0] + [1.0] * (runs - 1)

    def memory_bytes(self):
        return 1000


def test_each_launch_is_a_process_of_its_own_and_they_take_turns():
    FakeChild.log = []
    found = launch({"a": "a", "b": "b"}, launches=3, open_child=FakeChild)
    assert FakeChild.log == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": Cold(4.0, 10.0, 1000), "b": Cold(3.0, 10.0, 1000)}


@pytest.mark.parametrize("data", [b"", b"abc" * 1000, np.random.default_rng(0).bytes(3_000_000)])
def test_deflated_bytes_are_those_of_an_entry_in_a_zip(data, tmp_path):
    (tmp_path / "model.tflite").write_bytes(data)
    with zipfile.ZipFile(io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "model.tflite", "model.tflite")
        assert deflated_bytes(tmp_path / "model.tflite") == archive.infolist()[0].compress_size
