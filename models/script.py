"""How every script here ends: one line and an exit code, whatever happens."""

import sys
from collections.abc import Callable
from pathlib import Path

from compress.errors import CompressError


def ended(name: str, work: Callable[[], str], out: Path, stopped: str = "stopped, nothing was written") -> int:
    """Prints what the work of the script `name` returns, which it has written to `out`: 0. What goes wrong is one line
    on stderr: 2, and 130 after Ctrl-C."""
    try:
        print(work())
        return 0
    except CompressError as error:
        said, code = str(error), 2
    except OSError as error:
        said, code = f"{error.filename or out}: {error.strerror or error}", 2
    except KeyboardInterrupt:
        said, code = stopped, 130
    print(f"{name}: {said}", file=sys.stderr)
    return code
