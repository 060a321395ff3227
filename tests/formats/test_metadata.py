"""The metadata against tflite-support's own reader lives in tests/clients; here, what needs no other package."""

import zipfile

import flatbuffers
import numpy as np
import pytest
from flatbuffers.table import Table
from integer_reference import GraphBuilder
from operator_cases import u_shape

from compress.formats.metadata import LABELS, Card, metadata, packed_labels
from compress.formats.tflite import to_tflite
from compress.runtime.session import open_model

CARD = Card("rocks", "2.1", "finds rocks", "A. Stone", "CC0", ("background", "rock", "grüner Stein"))


def exported(path, card):
    builder = GraphBuilder((16, 16))
    u_shape(builder)
    to_tflite(builder.graph(), path, card=card)
    return path


def test_the_file_is_a_zip_of_its_labels_too(tmp_path):
    path = exported(tmp_path / "model.tflite", CARD)
    with zipfile.ZipFile(path) as archive:
        assert archive.read(LABELS).decode() == "background\nrock\ngrüner Stein\n"


def test_runtimes_compute_the_same_with_metadata_as_without(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    with_card = open_model(exported(tmp_path / "with.tflite", CARD)).probabilities(image)
    without = open_model(exported(tmp_path / "without.tflite", None)).probabilities(image)
    assert np.array_equal(with_card, without)


@pytest.mark.parametrize(("channels", "colours"), [(1, 2), (3, 1), (4, None)])
def test_an_image_is_grey_or_rgb_or_none_to_the_schema(channels, colours):
    data = metadata(CARD, channels, 0, 1, 0, 255)
    model = Table(data, flatbuffers.encode.Get(flatbuffers.packer.uoffset, data, 0))
    (graph,) = tables(model, 3)
    (image,) = tables(graph, 2)
    content = child(image, 3)
    assert (
        content and child(content, 1).Get(flatbuffers.number_types.Int8Flags, slot(child(content, 1), 0))
    ) == colours


def slot(table, index):
    return table.Pos + table.Offset(4 + 2 * index)


def child(table, index):
    return Table(table.Bytes, table.Indirect(slot(table, index))) if table.Offset(4 + 2 * index) else None


def tables(table, index):
    start = table.Vector(table.Offset(4 + 2 * index))
    return [
        Table(table.Bytes, table.Indirect(start + 4 * i)) for i in range(table.VectorLen(table.Offset(4 + 2 * index)))
    ]


def test_it_holds_what_the_card_says_and_is_reproducible():
    data = metadata(CARD, 3, 0, 1, 0, 255)
    assert data[4:8] == b"M001"
    for text in ("rocks", "2.1", "finds rocks", "A. Stone", "CC0", LABELS):
        assert text.encode() in data
    assert data == metadata(CARD, 3, 0, 1, 0, 255)
    assert packed_labels(CARD) == packed_labels(CARD)
