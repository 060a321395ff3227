"""What a file stores is what the graph has, in the file's own layout."""

import pytest
from integer_reference import GraphBuilder
from operator_cases import CASES

from compress.formats.onnx import to_onnx
from compress.formats.stored import differences
from compress.formats.tflite import to_tflite


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("write", [to_onnx, to_tflite])
def test_a_right_file_is_called_equal(write, case, tmp_path):
    builder = GraphBuilder()
    CASES[case](builder)
    builder.conv(builder.operators[-1].output, 3)
    path = tmp_path / f"model.{write.__name__.removeprefix('to_')}"
    write(builder.graph(), path)
    assert differences(builder.graph(), path) == []
