"""Libraries that talk where our own one line is to be read."""

import io
import logging
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
