"""QuantizedGraph -> ORT format, which onnxruntime's mobile packages load: converted from ONNX by onnxruntime itself."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from compress.errors import ExportError
from compress.files import write_whole
from compress.formats.metadata import Card
from compress.formats.onnx import Normalisation, to_onnx
from compress.graph.quantized import QuantizedGraph


def to_ort(
    graph: QuantizedGraph,
    path: Path,
    *,
    card: Card | None = None,
    expose: Sequence[str] = (),
    reads: Normalisation | None = None,
) -> None:
    """Write what `to_onnx` writes, with onnxruntime's own fusions stored in the file.

    Raises ExportError as `to_onnx` does, and where the installed onnxruntime cannot convert.
    """
    with TemporaryDirectory(prefix="compress-") as folder:
        source = Path(folder) / "model.onnx"
        to_onnx(graph, source, card=card, expose=expose, reads=reads)
        tool = "onnxruntime.tools.convert_onnx_models_to_ort"
        command = [sys.executable, "-m", tool, str(source), "--optimization_style", "Fixed", "--output_dir", folder]
        done = subprocess.run(command, capture_output=True, text=True)
        result = source.with_suffix(".ort")
        if done.returncode or not result.exists():
            last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
            raise ExportError(f"{graph.name}: the installed onnxruntime cannot convert to .ort: {last}; leave ort out")
        write_whole(path, result.read_bytes())
