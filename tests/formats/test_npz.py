"""The quantized graph as a file of its own."""

import json

import numpy as np
import pytest
from integer_reference import GraphBuilder
from operator_cases import u_shape

from compress.errors import ExportError
from compress.formats.npz import read_graph, write_graph


def test_a_graph_of_another_schema_is_one_clear_line(tmp_path):
    builder = GraphBuilder((16, 16), quantized=True)
    u_shape(builder)
    path = tmp_path / "graph.npz"
    write_graph(builder.graph(), path)
    with np.load(path) as archive:
        arrays = dict(archive)
    document = {**json.loads(arrays["graph"].tobytes()), "schema": 7}
    np.savez(path, **{**arrays, "graph": np.frombuffer(json.dumps(document).encode(), np.uint8)})
    with pytest.raises(ExportError, match=r"graph\.npz: schema 7 is not the 1 of this version; run again") as caught:
        read_graph(path)
    assert len(str(caught.value).splitlines()) == 1
