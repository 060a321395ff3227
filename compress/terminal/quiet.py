"""What is read on stderr: our own lines, above bars, and of libraries nothing unless it is asked for."""

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

log = logging.getLogger("compress")


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
