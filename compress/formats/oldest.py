"""The oldest runtime that reads a file."""

from pathlib import Path

RUNTIMES = {"onnx": "onnxruntime", "ort": "onnxruntime", "tflite": "TensorFlow Lite"}
_SINCE = {"onnx": "1.6.0", "ort": "1.16.0"}
"""Opset 13 came with 1.6; what onnxruntime writes as ORT since 1.16, format 6, no older one reads."""
_STATED = b"min_runtime_version"


def oldest_runtime(path: Path) -> dict[str, str | None]:
    """For example {"name": "TensorFlow Lite", "oldest": "2.3.0"}. Of a TFLite file it is what the file itself states of
    its operators; None: it states nothing."""
    form = path.suffix[1:]
    return {"name": RUNTIMES[form], "oldest": _SINCE[form] if form in _SINCE else _stated(path)}


def _stated(path: Path) -> str | None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes())
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == _STATED:
            text: bytes = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
            return text.rstrip(b"\0").decode("ascii")
    return None
