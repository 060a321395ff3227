"""Processes of this host, as /proc has them: what a test kills."""

import os
import time
from collections.abc import Callable
from pathlib import Path


def processes_with(word: str) -> list[int]:
    """Of `compress`, that were given the word."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(word) in words and b"compress" in words:
            found.append(int(each.parent.name))
    return found


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def wait_until(holds: Callable[[], object]) -> None:
    for _ in range(6000):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("never came true")
