"""What is read on stderr: our own lines, above bars, and of libraries nothing unless it is asked for."""

import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from compress.machine import are_several

log = logging.getLogger("compress")

GRACE = 10.0
"""Seconds in which the first of several processes says what is wrong, and ends; then torchrun ends the others."""


@contextmanager
def quietly() -> Iterator[None]:
    """While it lasts, nothing that a library logs, warns of or prints to stderr is shown, unless all is to be told."""
    if log.isEnabledFor(logging.DEBUG):
        yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def is_first() -> bool:
    """Whether this is the process that speaks, of those that torchrun started."""
    return not are_several() or os.environ.get("RANK", "0") == "0"


def silently(command: Callable[[], int], sleep: Callable[[float], None] = time.sleep) -> int:
    """What `command` returns, with nothing of what it prints: the first process prints the same. Where it fails, and
    the first one has not ended it within GRACE, what it printed to stderr is said after all. Raises what it does."""
    printed = io.StringIO()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(printed):
            code = command()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except Exception:
        sleep(GRACE)
        raise
    if code == 2:
        sleep(GRACE)
        print(printed.getvalue(), end="", file=sys.stderr)
    return code


class Above(logging.Handler):
    """Writes to stderr, above the bars that are there; where nothing has made one, tqdm is not imported for it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            bars = sys.modules.get("tqdm")
            if bars is None:
                print(line, file=sys.stderr)
            else:
                bars.tqdm.write(line, file=sys.stderr)
        except Exception:
            self.handleError(record)
