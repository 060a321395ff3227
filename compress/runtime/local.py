"""An exported file in a process of its own, both ends of it.

Native code that crashes then costs a MeasureError and no more, and onnxruntime and LiteRT never
share a process, in which one's spinning threads would slow the other.

    python -m compress.runtime.local FILE THREADS SECONDS

answers requests on stdin, each inference within SECONDS. A message is one line of JSON, followed by the bytes of the
arrays that it states in `arrays`.
"""

import json
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from compress.errors import CompressError, MeasureError
from compress.formats.artifact import Artifact, IOSpec
from compress.formats.npz import read_graph
from compress.machine import THREADS
from compress.runtime import deadline
from compress.runtime.kernels import KERNELS, Kernels
from compress.runtime.macs import count_macs
from compress.runtime.session import (
    NOISE_READING,
    Session,
    artifact_of,
    import_runtime,
    noise,
    open_model,
    tried_activation,
)

log = logging.getLogger("compress")


class Child:
    """The parent's end: a context manager, so that no child outlives its use. One request at a time.

    `input` and `output` are what the file says of itself. Opening and every request raise MeasureError: the file is no
    model, the runtime died on it, or it gave no answer in `seconds`, by default `deadline.limit_seconds`.
    """

    def __init__(self, path: Path, threads: int = THREADS, seconds: int | None = None):
        self._path, self._seconds = path, seconds or deadline.limit_seconds(path)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (close() closes it)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "compress.runtime.local", str(path), str(threads), str(self._seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends its children
        )
        assert self._process.stdin
        assert self._process.stdout
        self._requests, self._answers = self._process.stdin, self._process.stdout
        try:
            facts = self._answer()[0]
            self.runtime: str = facts["runtime"]
            self.load_ms: float = facts["load_ms"]
            self.input, self.output = _io_spec(facts["input"]), _io_spec(facts["output"])
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
        """uint8 [H, W, channels] -> float32 [classes, h, w]; `mean` and `std` as `Session.prepare` has them."""
        return self._ask({"mean": mean, "std": std}, image)[1][0]

    def outputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 [H, W, channels] -> every output by name, in the file's own shape and dtype."""
        answer, arrays = self._ask({"outputs": True}, image)
        return dict(zip(answer["names"], arrays, strict=True))

    def describe(self, activation: str | None = None) -> Artifact:
        """What the file says of itself, read from the file. `activation` of the output ("sigmoid", "softmax") is the
        caller's knowledge, and is tried out where it is None."""
        activation = activation or self._ask({"activation": True})[0]["activation"]
        try:
            macs = self.macs()
        except MeasureError as error:  # a foreign file may run well and yet not be counted
            log.info("%s", error)
            macs = None
        return artifact_of(self._path, self.input, replace(self.output, activation=activation), macs)

    def macs(self) -> int:
        """Multiply-accumulates of one inference. Raises MeasureError for a file that cannot be counted; serves on."""
        answer = self._ask({"macs": True})[0]
        if answer["macs"] is None:
            raise MeasureError(answer["reason"])
        return int(answer["macs"])

    def kernels(self, graph: Path | None = None) -> Kernels:
        """What the runtime really runs the file with; `graph`: the file of what it was written from."""
        found = self._ask({"kernels": True, "graph": graph and str(graph)})[0]
        return Kernels(**{**found, "outside": tuple(found["outside"])})

    def memory_bytes(self) -> int | None:
        """What the process has grown by at most since just before it opened the file; None where the system does
        not say (it does on Linux)."""
        return self._ask({"memory": True})[0]["memory_bytes"]

    def _ask(self, request: dict[str, Any], *arrays: np.ndarray) -> "_Message":
        try:
            _send(self._requests, request, *arrays)
        except BrokenPipeError:
            raise self._death() from None
        return self._answer()

    def _answer(self) -> "_Message":
        answer = _receive(self._answers)
        if answer is None:
            raise self._death()
        if "error" in answer[0]:
            raise MeasureError(answer[0]["error"])
        return answer

    def _death(self) -> MeasureError:
        code = self._process.wait()
        if deadline.ran_out(code):
            return MeasureError(deadline.says(self._path, self._seconds))
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._stderr.seek(0)
        last = self._stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
        return MeasureError(f"{self._path}: the runtime died on it ({how}) {last}".rstrip() + "; export it again")


def _io_spec(facts: dict[str, Any]) -> IOSpec:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
    return IOSpec(**fields)


def describe_in_child(path: Path, activation: str | None = None) -> Artifact:
    """`Child.describe` of a file that may crash the runtime. Raises MeasureError."""
    with Child(path, threads=1) as child:
        return child.describe(activation)


def samples_ms(infer: Callable[[], object], runs: int, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Milliseconds of each call; `clock` counts seconds."""
    samples = []
    for _ in range(runs):
        start = clock()
        infer()
        samples.append((clock() - start) * 1e3)
    return samples


_Message = tuple[dict[str, Any], list[np.ndarray]]


def _send(stream: IO[bytes], message: dict[str, Any], *arrays: np.ndarray) -> None:
    described = [(array.shape, array.dtype.name) for array in arrays]
    stream.write(json.dumps({**message, "arrays": described}).encode() + b"\n")
    for array in arrays:
        stream.write(np.ascontiguousarray(array).data)
    stream.flush()


def _receive(stream: IO[bytes]) -> _Message | None:
    """The next message and its arrays; None once the other end is gone."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    message, arrays = json.loads(line), []
    for shape, name in message.pop("arrays"):
        dtype = np.dtype(name)
        size_bytes = math.prod(shape) * dtype.itemsize
        data = stream.read(size_bytes)
        if len(data) != size_bytes:
            return None
        arrays.append(np.frombuffer(bytearray(data), dtype).reshape(shape))  # which may be written to
    return message, arrays


def _memory_bytes(kind: str) -> int | None:
    """`VmRSS`, what the process holds now, or `VmHWM`, the most that it ever held."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:")), None)


def main(path: Path, threads: int, seconds: int) -> None:
    """The child's end: serves requests until stdin closes."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # native code may print on stdout, which is the parent's line
    deadline.prepare_child()
    try:
        import_runtime(path)
        before = _memory_bytes("VmRSS")
        deadline.start(seconds)
        session = open_model(path, threads)
        served = _Served(path, session, session.prepare(noise(session), *NOISE_READING), seconds, before)
        ends = {"input": asdict(session.input), "output": asdict(session.output)}
        deadline.start(0)
        _send(replies, {"runtime": session.runtime, "load_ms": session.load_ms, **ends})
        while request := _receive(sys.stdin.buffer):
            deadline.start(seconds)
            answer, arrays = served.answer(*request)
            deadline.start(0)
            _send(replies, answer, *arrays)
    except CompressError as error:
        _send(replies, {"error": str(error)})
    except BrokenPipeError:  # the parent is gone
        pass
    except Exception as error:  # each runtime raises types of its own
        reason = str(error).strip().rpartition("\n")[2] or type(error).__name__
        _send(replies, {"error": f"{path}: the runtime failed on it: {reason}; export it again"})


@dataclass(frozen=True)
class _Served:
    """What a child answers requests from. `prepared` is noise as the file reads it, `before` the memory that the
    process had before it opened the file."""

    path: Path
    session: Session
    prepared: np.ndarray
    seconds: int
    before: int | None

    def answer(self, message: dict[str, Any], arrays: list[np.ndarray]) -> _Message:
        if "time" in message:
            return {"samples_ms": samples_ms(self.infer, message["time"])}, []
        if "memory" in message:
            peak = _memory_bytes("VmHWM")
            known = self.before is not None and peak is not None
            return {"memory_bytes": max(0, peak - self.before) if known else None}, []  # type: ignore[operator]
        if "activation" in message:
            return {"activation": tried_activation(self.session)}, []
        if "macs" in message:
            return self.macs(), []
        if "kernels" in message:
            graph = read_graph(Path(message["graph"])) if message["graph"] else None
            return asdict(KERNELS[self.path.suffix[1:]](self.path, graph)), []
        if "outputs" in message:
            found = self.session.run_all(self.session.prepare(arrays[0]))
            return {"names": list(found)}, list(found.values())
        return {}, [self.session.probabilities(arrays[0], message["mean"], message["std"])]

    def macs(self) -> dict[str, Any]:
        try:
            return {"macs": count_macs(self.path)}
        except MeasureError as error:
            return {"macs": None, "reason": str(error)}

    def infer(self) -> None:
        """One inference, within a time limit of its own however many are asked for."""
        deadline.start(self.seconds)
        self.session.infer(self.prepared)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
