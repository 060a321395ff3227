"""How far a stage is: a bar where somebody watches, a line for each tenth where nobody does."""

import io
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import tqdm as library

log = logging.getLogger("compress")

APART = 10.0
"""Seconds between two lines, at least."""


def tqdm(*arguments: Any, **options: Any) -> "library.tqdm[Any]":
    """tqdm.tqdm with these arguments: a bar on a terminal, else lines in the log; neither where the log is quiet."""
    kind = library.tqdm if sys.stderr.isatty() else Lines
    return kind(*arguments, **options if log.isEnabledFor(logging.INFO) else {**options, "disable": True})


class Lines(library.tqdm):  # type: ignore[type-arg]
    """A bar that is a line of the log at each tenth, but for those that come within APART seconds of another."""

    monitor_interval = 0

    def __init__(self, *arguments: Any, clock: Callable[[], float] = time.monotonic, **options: Any):
        self.clock, self.said, self.tenth = clock, clock(), 0
        super().__init__(*arguments, **{**options, "file": io.StringIO()})

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        tenth = int(10 * self.n / self.total) if self.total else 0
        if self.tenth < tenth < 10 and self.clock() - self.said >= APART:
            self.tenth, self.said = tenth, self.clock()
            log.info("%s: %d %%", self.desc.removesuffix(": "), 10 * tenth)
        return True
