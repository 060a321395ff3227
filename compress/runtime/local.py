"""An exported file in a process of its own, both ends of it.

Native code that crashes then costs a MeasureError and no more, and onnxruntime and LiteRT never
share a process, in which one's spinning threads would slow the other.

    python -m compress.runtime.local FILE THREADS

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
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from compress.errors import MeasureError
from compress.formats.artifact import Artifact, IOSpec
from compress.machine import THREADS
from compress.runtime.kernels import KERNELS, Kernels
from compress.runtime.session import NOISE_READING, artifact_of, import_runtime, noise, open_model, tried_activation


class Child:
    """The parent's end: a context manager, so that no child outlives its use. One request at a time.

    Opening and every request raise MeasureError: the file is no model, or the runtime died on it.
    """

    def __init__(self, path: Path, threads: int = THREADS):
        self._path = path
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (close() closes it)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "compress.runtime.local", str(path), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends its children
        )
        assert self._process.stdin
        assert self._process.stdout
        self._requests, self._answers = self._process.stdin, self._process.stdout
        try:
            self._facts = self._answer()[0]
            self.runtime: str = self._facts["runtime"]
            self.load_ms: float = self._facts["load_ms"]
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

    def describe(self) -> Artifact:
        """What the file says of itself, and shows of itself when it is run, as `session.describe` has it."""
        given, made = (_io_spec(self._facts[end]) for end in ("input", "output"))
        return artifact_of(
            self._path, given, replace(made, activation=self._ask({"activation": True})[0]["activation"])
        )

    def kernels(self) -> Kernels:
        """What the runtime really runs the file with."""
        found = self._ask({"kernels": True})[0]
        return Kernels(found["counts"], tuple(found["outside"]))

    def memory_bytes(self) -> int | None:
        """What the process has grown by at most since just before it opened the file; None where the system does
        not say (it does on Linux)."""
        return self._ask({"memory": True})[0]["memory_bytes"]

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


def _io_spec(facts: dict[str, Any]) -> IOSpec:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
    return IOSpec(**fields)


def describe_in_child(path: Path) -> Artifact:
    """`Child.describe` of a file that may crash the runtime. Raises MeasureError."""
    with Child(path, threads=1) as child:
        return child.describe()


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


def _memory_bytes(kind: str) -> int | None:
    """`VmRSS`, what the process holds now, or `VmHWM`, the most that it ever held."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:")), None)


def main(path: Path, threads: int) -> None:
    """The child's end: serves requests until stdin closes."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # native code may print on stdout, which is the parent's line
    try:
        import_runtime(path)
        before = _memory_bytes("VmRSS")
        session = open_model(path, threads)
        prepared = session.prepare(noise(session), *NOISE_READING)
        ends = {"input": asdict(session.input), "output": asdict(session.output)}
        _send(replies, {"runtime": session.runtime, "load_ms": session.load_ms, **ends})
        while request := _receive(sys.stdin.buffer):
            message, image = request
            if "time" in message:
                _send(replies, {"samples_ms": samples_ms(lambda: session.infer(prepared), message["time"])})
            elif "memory" in message:
                peak = _memory_bytes("VmHWM")
                _send(replies, {"memory_bytes": None if before is None or peak is None else max(0, peak - before)})
            elif "activation" in message:
                _send(replies, {"activation": tried_activation(session)})
            elif "kernels" in message:
                _send(replies, asdict(KERNELS[path.suffix[1:]](path)))
            else:
                _send(replies, {}, session.probabilities(image, message["mean"], message["std"]))
    except MeasureError as error:
        _send(replies, {"error": str(error)})
    except BrokenPipeError:  # the parent is gone
        pass
    except Exception as error:  # each runtime raises types of its own
        reason = str(error).strip().rpartition("\n")[2] or type(error).__name__
        _send(replies, {"error": f"{path}: the runtime failed on it: {reason}; export it again"})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
