"""Tries hostile input, one command after the other, each in a fork of a process that has imported everything:

    python worker.py CORPUS FOLDER

reads names of trials on stdin and answers each with a line of JSON: what is wrong with how the command ended.
"""

import ctypes
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HANG_SECONDS = 120
"""Of processor time, or of waiting for what nobody does; a runtime has 60 s for one answer."""

MEMORY_BYTES = 3 << 30
_SAMPLE_SECONDS = 0.1
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_LINE = re.compile(r"compress( \w+)?: \S")


@dataclass(frozen=True)
class End:
    """How a command ended. `code`: negative for a signal, None where it did not end."""

    code: int | None
    why: str
    stdout: str
    stderr: str


def tried(name: str, corpus: Path, folder: Path) -> dict[str, object]:
    from trials import Room, trial

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    one = trial(name, Room(corpus, folder))
    before = {path.name for path in folder.iterdir()} | {"out", "out.html", "stdout", "stderr"}
    end = ended(one.argv, folder)
    wrong = complaints(one.argv[0], end)
    if end.code == 0 and not one.may_pass():
        wrong.append("it passed")
    strangers = {path.name for path in folder.iterdir()} - before
    if strangers:
        wrong.append(f"it wrote {', '.join(sorted(strangers))} beside its folder, or ran code that did")
    if any("<script>alert(1)" in page.read_text(errors="replace") for page in folder.rglob("*.html") if page.is_file()):
        wrong.append("the page runs a script of the record")
    return {
        "name": name,
        "wrong": wrong,
        "said": one.said,
        "argv": one.argv,
        "code": end.code,
        "stderr": end.stderr[-3000:],
    }


def complaints(command: str, end: End) -> list[str]:
    """What no input should lead to."""
    if end.code is None:
        return [end.why]
    if end.code < 0:
        return [f"it died of {signal.Signals(-end.code).name}"]
    found = []
    if end.code not in ((0, 1, 2) if command in ("run", "verify", "gate") else (0, 2)):
        found.append(f"exit code {end.code}")
    if "Traceback (most recent call last)" in end.stderr + end.stdout:
        found.append("a traceback")
    lines = end.stderr.splitlines() or [""]
    if end.code == 2 and not (_LINE.match(lines[-1]) and sum(map(bool, map(_LINE.match, lines))) == 1):
        found.append(f"exit code 2 without one last line that says why: {lines[-1][:200]!r}")
    if command == "bench" and re.search(r"\b(nan|inf)\b", end.stdout):
        found.append("figures that are no numbers")
    return found


def ended(argv: list[str], folder: Path) -> End:
    out, err = folder / "stdout", folder / "stderr"
    child = os.fork()
    if not child:
        _command(argv, folder, out, err)
    code, why = _awaited(child)
    _kill_all()
    return End(code, why, out.read_text(errors="replace"), err.read_text(errors="replace"))


def _command(argv: list[str], folder: Path, out: Path, err: Path) -> None:
    """In the fork: the command, as the console script runs it. Does not return."""
    code = 1
    try:
        os.chdir(folder)
        os.setsid()
        for number, path in ((0, os.devnull), (1, out), (2, err)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
        used = next(
            int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line
        )
        resource.setrlimit(resource.RLIMIT_DATA, (used * 1024 + MEMORY_BYTES, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        from compress.cli import main

        code = main(argv)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _awaited(child: int) -> tuple[int | None, str]:
    """Its exit code, or None and why it was not waited for any longer."""
    idle = 0.0
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), ""
        used, busy = _used()
        if used > HANG_SECONDS:
            return None, f"it ran for more than {HANG_SECONDS} s of processor time"
        if idle > HANG_SECONDS:
            return None, f"it waited for more than {HANG_SECONDS} s"
        pause = _SAMPLE_SECONDS if used > 0.5 or idle > 0.5 else 0.01
        time.sleep(pause)
        idle = 0.0 if busy else idle + pause


def _used() -> tuple[float, bool]:
    """Seconds of processor time that this process's children have had, and whether any of them has work to do."""
    used, busy = 0.0, False
    for pid in _descendants(os.getpid()):
        with suppress(OSError, IndexError):
            used += sum(map(int, _stat(f"/proc/{pid}/stat")[11:15])) / _CLOCK_TICKS
            busy |= any(_stat(f"{task}/stat")[0] in "RD" for task in Path(f"/proc/{pid}/task").iterdir())
    return used, busy


def _stat(path: str) -> list[str]:
    """From the third on: the second may hold spaces."""
    return Path(path).read_text().rpartition(")")[2].split()


def _descendants(pid: int) -> Iterator[int]:
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from _descendants(child)


def _kill_all() -> None:
    """What the command left behind is adopted by this process."""
    while True:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        if not children:
            return
        for pid in map(int, children):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def warm_up() -> None:
    """Import whatever a command would, once."""
    import importlib
    import pkgutil

    import ai_edge_litert.interpreter  # noqa: F401
    import onnxruntime  # noqa: F401
    import torch

    import compress

    for module in pkgutil.walk_packages(compress.__path__, "compress."):
        importlib.import_module(module.name)
    torch.set_num_threads(1)


def main(corpus: Path, folder: Path) -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans come back here
    warm_up()
    for line in sys.stdin:
        name = line.strip()
        try:
            answer = tried(name, corpus, folder / name)
        except Exception:
            answer = {"name": name, "wrong": ["the fuzzer itself failed"], "stderr": traceback.format_exc()}
        print(json.dumps(answer), file=replies)
        if not answer["wrong"]:
            shutil.rmtree(folder / name, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
