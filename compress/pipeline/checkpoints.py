"""What a run has finished, so that it can go on after it was killed at any time."""

import io
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from compress.errors import RecipeError
from compress.files import write_whole
from compress.pipeline.history import History
from compress.report.record import HistoryPoint

log = logging.getLogger("compress")
T = TypeVar("T")

RUN = "run.json"
TRAINED = ("distil", "ptq", "qat")
"""What a longer training makes anew."""

_KEYS = {"identity", "minutes", "trained", "history", "model", "recipe", "recipe_folder", "command"}


@dataclass(frozen=True)
class Start:
    """How a run was started: all that is needed to start it again."""

    model: str
    recipe: dict[str, Any]
    recipe_folder: str
    command: str


class Checkpoints:
    """The folder of checkpoints: each stage's result is a file of its own, written whole and then noted in run.json,
    with the minutes that it took and the points of the history that it added."""

    def __init__(self, folder: Path, start: Start, resume: bool):
        self.folder, self.start = folder, start
        self.minutes: dict[str, float] = {}
        self.history = History()
        self.identity = ""
        if resume:
            document = _read(folder)
            self.minutes, self.identity = document["minutes"], document["identity"]
            self.history = History([HistoryPoint(**point) for point in document["history"]], document["trained"])
            if document["recipe"].get("train") != start.recipe.get("train"):
                self._train_on()

    def _train_on(self) -> None:
        """Forget all that comes after the repair but for the state of the distillation, which goes on from there."""
        for stage in TRAINED:
            self.minutes.pop(stage, None)
        (self.folder / "qat.state").unlink(missing_ok=True)
        self.history.forget(TRAINED)

    def open(self, identity: str) -> None:
        """`identity` is that of the model, the recipe and the content of the data. Raises RecipeError when the run that
        is to go on had another; a new run forgets what an older one left in the folder."""
        if self.identity and self.identity != identity:
            raise RecipeError(
                f"{self.folder.parent}: the model, the recipe or the images changed since this run began; "
                "start it anew, without --resume"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        left = ("*.partial",) if self.identity else ("*.partial", "*.pt", "*.state")
        for path in (path for pattern in left for path in self.folder.glob(pattern)):
            path.unlink(missing_ok=True)
        self.identity = identity
        self._write()

    def once(self, name: str, make: Callable[[], T], state: Callable[[T], Any], restore: Callable[[Any], T]) -> T:
        """The result of the stage `name`: from its checkpoint, or made now and kept as the plain values of `state`."""
        path = self.folder / f"{name}.pt"
        if name in self.minutes and path.exists():
            log.info("%s: from %s", name, path)
            return restore(torch.load(path, weights_only=True))
        points, trained = list(self.history.points), self.history.minutes
        try:
            with self.stage(name):
                result = make()
                buffer = io.BytesIO()
                torch.save(state(result), buffer)
                write_whole(path, buffer.getvalue())
        except BaseException:
            self.history.restore(points, trained)
            raise
        # Some of the minutes were of a run that was killed.
        self.minutes[name] = max(self.minutes[name], self.history.minutes - trained)
        self._write()
        return result

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        log.info("%s ...", name)
        start = time.monotonic()
        yield
        self.minutes[name] = (time.monotonic() - start) / 60

    def _write(self) -> None:
        document = {
            "identity": self.identity,
            **asdict(self.start),
            "minutes": self.minutes,
            "trained": self.history.minutes,
            "history": [asdict(point) for point in self.history.points],
        }
        write_whole(self.folder / RUN, json.dumps(document, indent=2).encode())


def started(folder: Path) -> Start:
    """How the run in the output folder `folder` was started. Raises RecipeError where there is none."""
    document = _read(folder / "checkpoints")
    return Start(**{name: document[name] for name in Start.__dataclass_fields__})


def _read(folder: Path) -> dict[str, Any]:
    path = folder / RUN
    try:
        document = json.loads(path.read_text())
        if isinstance(document, dict) and document.keys() >= _KEYS:
            return document
        reason = "it is no record of a run, or one of another version; start the run anew, without --resume"
    except FileNotFoundError:
        reason = "no such file; give --resume the output folder of a run that got as far as its teacher's maps"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise RecipeError(f"{path}: {reason}")
