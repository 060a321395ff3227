"""What the Task Libraries and MediaPipe read beside the network: TFLite Metadata, schema version M001.

The tables and their fields are those of tflite-support's `metadata_schema.fbs` (Apache-2.0). That package itself pins
protobuf below 4 and cannot be installed beside onnx, and a dozen tables need no more than flatbuffers.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import flatbuffers
from flatbuffers.table import Table

LABELS = "labels.txt"
_RGB, _GREYSCALE = 1, 2  # ColorSpaceType
_COLOURS = {1: _GREYSCALE, 3: _RGB}
_IMAGE = 2  # ContentProperties.ImageProperties
_NORMALIZATION = 1  # ProcessUnitOptions.NormalizationOptions
_AXIS_LABELS = 2  # AssociatedFileType.TENSOR_AXIS_LABELS


@dataclass(frozen=True)
class Card:
    """What a file says of itself. `labels` are the classes in the order of the output's channels; `pixels`: how the
    values of an image become its pixels, where that need be said; with `multilabel` a pixel can have several of the
    labels."""

    name: str
    version: str = ""
    description: str = ""
    author: str = ""
    licence: str = ""
    labels: tuple[str, ...] = ()
    pixels: str = ""
    multilabel: bool = False

    @property
    def labels_text(self) -> str:
        return "".join(f"{label}\n" for label in self.labels)


def metadata(card: Card, channels: int, mean: float, std: float, lowest: float, highest: float) -> bytes:
    """The metadata of a segmenter that reads pixels as (pixel - mean) / std, between `lowest` and `highest`. The schema
    knows grey and RGB images; one of other channels is none to it."""
    b = flatbuffers.Builder(1024)
    labels = _table(b, {0: b.CreateString(LABELS), 1: b.CreateString("one class a line"), 2: _Byte(_AXIS_LABELS)})
    normalization = _table(b, {0: _floats(b, [mean]), 1: _floats(b, [std])})
    unit = _table(b, {0: _Byte(_NORMALIZATION), 1: normalization})
    colours = _COLOURS.get(channels)
    image = {3: _table(b, {0: _Byte(_IMAGE), 1: _table(b, {0: _Byte(colours)})})} if colours else {}
    named = {1: "grey image", 3: "RGB photograph"}.get(channels, f"image of {channels} channels")
    given = _table(
        b,
        {
            0: b.CreateString("image"),
            1: b.CreateString(f"{named}: {card.pixels}" if card.pixels else named),
            **image,
            4: _tables(b, [unit]),
            5: _table(b, {0: _floats(b, [highest]), 1: _floats(b, [lowest])}),
        },
    )
    pixels = _table(b, {0: _Int(1), 1: _Int(2)})  # height and width; the last dimension is classes
    masks = _table(b, {0: _Byte(_IMAGE), 1: _table(b, {0: _Byte(_GREYSCALE)}), 2: pixels})
    made = _table(
        b,
        {
            0: b.CreateString("segmentation_masks"),
            1: b.CreateString(
                "probability of each label, by itself" if card.multilabel else "probability of each class"
            ),
            3: masks,
            6: _tables(b, [labels]),
        },
    )
    subgraph = _table(b, {2: _tables(b, [given]), 3: _tables(b, [made])})
    texts = {0: card.name, 1: card.description, 2: card.version, 4: card.author, 5: card.licence, 7: "1.0.0"}
    strings: dict[int, _Value] = {slot: b.CreateString(text) for slot, text in texts.items() if text}
    b.Finish(_table(b, {**strings, 3: _tables(b, [subgraph])}), file_identifier=b"M001")
    return bytes(b.Output())


def packed_labels(card: Card) -> bytes:
    """The zip archive that follows the FlatBuffer in the file and holds the labels; always the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(LABELS), card.labels_text)
    return buffer.getvalue()


def names_files(packed: bytes) -> bool:
    """Whether metadata refer to files, which then follow the FlatBuffer as a zip archive."""
    root = flatbuffers.encode.Get(flatbuffers.packer.uoffset, packed, 0)
    model = Table(packed, root)
    graphs = _elements(model, 3)
    tensors = [tensor for graph in graphs for slot in (2, 3) for tensor in _elements(graph, slot)]
    holders = [(model, 6), *((graph, 4) for graph in graphs), *((tensor, 6) for tensor in tensors)]
    return any(_elements(table, slot) for table, slot in holders)


def _elements(table: Table, slot: int) -> list[Table]:
    """The tables of a vector; none where it is not there."""
    offset = table.Offset(4 + 2 * slot)
    if not offset:
        return []
    start, count = table.Vector(offset), table.VectorLen(offset)
    if 4 * count > len(table.Bytes):
        raise ValueError(f"its metadata cannot hold {count} tables")
    return [Table(table.Bytes, table.Indirect(start + 4 * i)) for i in range(count)]


@dataclass(frozen=True)
class _Byte:
    value: int


@dataclass(frozen=True)
class _Int:
    value: int


_Value = int | _Byte | _Int  # a plain int is the offset of something written before


def _table(b: flatbuffers.Builder, fields: Mapping[int, _Value]) -> int:
    b.StartObject(max(fields) + 1)
    for slot, field in fields.items():
        if isinstance(field, _Byte):
            b.PrependInt8Slot(slot, field.value, 0)
        elif isinstance(field, _Int):
            b.PrependInt32Slot(slot, field.value, 0)
        else:
            b.PrependUOffsetTRelativeSlot(slot, field, 0)
    return b.EndObject()


def _tables(b: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return b.EndVector()


def _floats(b: flatbuffers.Builder, values: Sequence[float]) -> int:
    b.StartVector(4, len(values), 4)
    for value in reversed(values):
        b.PrependFloat32(value)
    return b.EndVector()
