"""An exported file in a process of its own, both ends of it.

Native code that crashes then costs a MeasureError and no more, and onnxruntime and LiteRT never
share a process, in which one's spinning threads would slow the other.

    python -m compress.measure.child FILE THREADS

answers requests on stdin. A message is one line of JSON, followed by the bytes of an array where it
states `shape` and `dtype`.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from compress.errors import MeasureError


class Child:
    """The parent's end: a context manager, so that no child outlives its use. One request at a time.

    Opening and every request raise MeasureError: the file is no model, or the runtime died on it.
    """

    def __init__(self, path: Path, threads: int = 2):
        self._path = path
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (close() closes it)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "compress.measure.child", str(path), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends its children
        )
        assert self._process.stdin
        assert self._process.stdout
        self._requests, self._answers = self._process.stdin, self._process.stdout
        try:
            self.runtime: str = self._answer()[0]["runtime"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._stderr.close()

    def time(self, runs: int) -> list[float]:
        """Milliseconds of each of `runs` inferences on noise, without preprocessing."""
        return self._ask({"time": runs})[0]["samples_ms"]

    def probabilities(
        self, image: np.ndarray, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> np.ndarray:
        """uint8 [H, W, 3] -> float32 [classes, h, w]; `mean` and `std` as `Session.prepare` has them."""
        return self._ask({"mean": mean, "std": std}, image)[1]

    def _ask(self, request: dict[str, Any], array: np.ndarray | None = None) -> tuple[dict[str, Any], np.ndarray]:
        try:
            _send(self._requests, request, array)
        except BrokenPipeError:
            raise self._death() from None
        return self._answer()

    def _answer(self) -> tuple[dict[str, Any], np.ndarray]:
        answer = _receive(self._answers)
        if answer is None:
            raise self._death()
        if "error" in answer[0]:
            raise MeasureError(answer[0]["error"])
        return answer

    def _death(self) -> MeasureError:
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._stderr.seek(0)
        last = self._stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
        return MeasureError(f"{self._path}: the runtime died on it ({how}) {last}".rstrip() + "; export it again")


def samples_ms(infer: Callable[[], object], runs: int, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Milliseconds of each call; `clock` counts seconds."""
    samples = []
    for _ in range(runs):
        start = clock()
        infer()
        samples.append((clock() - start) * 1e3)
    return samples


def _send(stream: IO[bytes], message: dict[str, Any], array: np.ndarray | None = None) -> None:
    if array is not None:
        message = message | {"shape": array.shape, "dtype": array.dtype.name}
    stream.write(json.dumps(message).encode() + b"\n")
    if array is not None:
        stream.write(array.tobytes())
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[dict[str, Any], np.ndarray] | None:
    """The next message, and its array (empty where it has none); None once the other end is gone."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    message = json.loads(line)
    shape, dtype = message.get("shape", (0,)), np.dtype(message.get("dtype", "uint8"))
    size_bytes = int(np.prod(shape)) * dtype.itemsize
    data = stream.read(size_bytes)
    return (message, np.frombuffer(data, dtype).reshape(shape)) if len(data) == size_bytes else None


def main(path: Path, threads: int) -> None:
    """The child's end: serves requests until stdin closes."""
    from compress.formats.runtime import open_model

    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # native code may print on stdout, which is the parent's line
    try:
        session = open_model(path, threads)
        height, width = session.input.shape[1:3] if session.input.layout == "NHWC" else session.input.shape[2:]
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        prepared = session.prepare(noise, mean=(127.5,) * 3, std=(64.0,) * 3)
        _send(replies, {"runtime": session.runtime})
        while request := _receive(sys.stdin.buffer):
            message, image = request
            if "time" in message:
                _send(replies, {"samples_ms": samples_ms(lambda: session.infer(prepared), message["time"])})
            else:
                _send(replies, {}, session.probabilities(image, message["mean"], message["std"]))
    except MeasureError as error:
        _send(replies, {"error": str(error)})
    except BrokenPipeError:  # the parent is gone
        pass


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
