"""What files say, compared with the graph in a process of its own: a hostile file can keep a parser busy for ever.

    python -m compress.runtime.readback GRAPH FILE SECONDS

prints the differences as JSON.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from compress.errors import CompressError, ExportError
from compress.formats.npz import read_graph, write_graph
from compress.formats.stored import differences
from compress.graph.quantized import QuantizedGraph
from compress.runtime import deadline


def said_otherwise(graph: QuantizedGraph, paths: Sequence[Path], folder: Path) -> dict[Path, list[str]]:
    """`differences` of each file; `folder` is one to write to. Raises ExportError for a file that is no model."""
    written = folder / "graph.npz"
    write_graph(graph, written)
    return {path: _said_otherwise(written, path) for path in paths}


def _said_otherwise(graph: Path, path: Path) -> list[str]:
    seconds = deadline.limit_seconds(path)
    command = [sys.executable, "-P", "-m", "compress.runtime.readback", str(graph), str(path), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", start_new_session=True)
    if deadline.ran_out(done.returncode):
        raise ExportError(deadline.says(path, seconds))
    if done.returncode:
        raise ExportError(
            f"{path}: cannot be read back: its parser died (exit code {done.returncode}); export it again"
        )
    answer: dict[str, list[str]] = json.loads(done.stdout)
    if "error" in answer:
        raise ExportError(*answer["error"])
    return answer["differences"]


def main(graph: Path, path: Path, seconds: int) -> None:
    deadline.prepare_child()
    deadline.start(seconds)
    try:
        answer = {"differences": differences(read_graph(graph), path)}
    except CompressError as error:
        answer = {"error": [str(error)]}
    except Exception as error:  # a graph that contradicts itself
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        answer = {"error": [f"{path}: cannot be compared with its graph: {reason}; run again"]}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
