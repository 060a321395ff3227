"""What a file is, and what was said of it."""

from pathlib import Path

import pytest

from compress.formats.artifact import Artifact, IOSpec

A, B, C = (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (7.0, 8.0, 9.0)


def artifact(dtype: str, mean=None, std=None, channels: int = 3) -> Artifact:
    given = IOSpec("image", (1, 3, 24, 20), dtype, "NCHW", mean=mean, std=std)
    return Artifact(Path("a.onnx"), "onnx", "", 0, given, IOSpec("map", (1, 12, 10, channels), dtype, "NHWC"))


@pytest.mark.parametrize(
    ("own", "said", "wanted"),
    [
        ((None, None), [(A, B)], (A, B)),
        ((A, B), [(C, C)], (A, B)),  # the file itself counts first
        ((None, None), [(A, B), (C, C)], (A, B)),  # then what is said first
        ((None, None), [(A, None), (C, C)], (A, C)),  # and half of it is completed
        ((None, B), [(A, C)], (A, B)),
    ],
)
def test_what_a_float_input_reads_is_what_is_best_known(own, said, wanted):
    file = artifact("float32", *own)
    for mean, std in said:
        file = file.reading(mean, std)
    assert (file.input.mean, file.input.std) == wanted
    assert not file.unknown_input


def test_nothing_said_leaves_it_unknown_and_a_uint8_input_reads_pixels_as_they_are():
    assert artifact("float32").reading(None, None).unknown_input
    assert artifact("float32").reading(A, None).unknown_input
    assert artifact("uint8").reading(A, B) == artifact("uint8")
    assert not artifact("uint8").unknown_input


def test_size_is_the_inputs_and_classes_are_the_maps():
    assert artifact("uint8").size == (24, 20)
    assert [artifact("uint8", channels=count).classes for count in (1, 2, 3)] == [2, 2, 3]
