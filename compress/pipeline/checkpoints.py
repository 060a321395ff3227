"""What a run has finished, so that it can go on after it was killed at any time."""

import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from compress.errors import RecipeError
from compress.files import Sealed, cache_folder, identity, write_whole
from compress.machine import clock, give_way
from compress.pipeline.forecast import Forecast
from compress.pipeline.history import History
from compress.report.record import HistoryPoint
from compress.train import processes

log = logging.getLogger("compress")
T = TypeVar("T")

FOLDER = "checkpoints"
RUN = "run.json"
TRAINED = ("distil", "ptq", "qat")
"""What a longer training makes anew, the distillation from where it was."""


@dataclass(frozen=True)
class Start:
    """How a run was started: all that is needed to start it again."""

    model: str
    recipe: dict[str, Any]
    recipe_folder: str
    command: str

    @property
    def duration(self) -> list[Any]:
        """What of the recipe a longer training changes."""
        train = self.recipe.get("train", {})
        return [train.get("minutes"), train.get("steps")]

    def remember(self) -> None:
        """That it was this user who started it. Raises WriteError, or DataError."""
        write_whole(self._mark, b"")

    @property
    def own(self) -> bool:
        """Whether this user started it, here. What the folder of a run says of itself is no proof of that."""
        return self._mark.is_file()

    @property
    def _mark(self) -> Path:
        return cache_folder() / f"started-{identity('started', 1, start=asdict(self))}"


class Checkpoints:
    """The folder of checkpoints: each stage's result is a file of its own, with the minutes that it took and the points
    of the history that it added. A file that is damaged, or of another run, is not there; and where a stage is made
    anew, so is all that comes after it."""

    def __init__(self, folder: Path, start: Start, resume: bool, history: Path | None = None):
        self.folder, self.start, self.resume = folder, start, resume
        self.minutes: dict[str, float] = {}
        self.history = History(history)
        self.identity = ""
        self.forecast: Forecast | None = None
        self._finished: list[str] = []

    def open(self, run: str) -> None:
        """`run` is the identity of the model, the recipe and the content of the data. Raises RecipeError when the run
        that is to go on had another; a new run forgets what an older one left in the folder."""
        if self.resume and _read(self.folder)[1] != run:
            raise RecipeError(
                f"{self.folder.parent}: the model, the recipe or the images changed since this run began; "
                "start it anew, without --resume"
            )
        self._begin(run)
        document = {"identity": run, **asdict(self.start)}
        write_whole(self.folder / RUN, json.dumps(document, indent=2).encode())

    def inside(self, name: str, **made_from: object) -> "Checkpoints":
        """Those of something else that the same run makes, in a folder of their own, of what else goes into it."""
        own = Checkpoints(self.folder / name, self.start, self.resume)
        own._begin(identity(name, 1, run=self.identity, **made_from))
        return own

    def _begin(self, of: str) -> None:
        if self.folder.is_symlink():
            raise RecipeError(f"{self.folder}: is a link to another folder, in which files would be lost; remove it")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.identity = of
        self._forget("*.partial", *(() if self.resume else ("*.pt", "*.state")))
        self.history.restore([], 0.0)

    def kept(self) -> list[str]:
        """The stages that a run goes on from, by the files that there are."""
        return [path.stem for path in self.folder.glob("*.pt")] if self.resume else []

    def once(
        self,
        name: str,
        make: Callable[[], T],
        state: Callable[[T], Any],
        restore: Callable[[Any], T],
        *,
        together: bool = False,
    ) -> T:
        """The result of the stage `name`: from its checkpoint, or made now and kept as the plain values of `state`. Of
        several processes the first one makes it, or with `together` all; what the first one has is every one's."""
        file = self._sealed(f"{name}.pt", name in TRAINED)
        if (content := processes.from_first(file.read)) is not None:
            try:
                result = self._restored(content, restore)
                log.info("%s: from %s", name, file.path)
                self._finished.append(name)
                return result
            except Exception as error:  # whatever a file may hold that was made to do harm, or by another version
                log.warning("%s: cannot be used (%s): it is made anew", file.path, type(error).__name__)
        self._forget("*.pt", "*.state", but=[*self._finished, name])
        if processes.first():
            result = self._made(name, make, state, file)
        else:
            result = self._restored(self._told(make if together else None), restore)
        self._finished.append(name)
        return result

    def _told(self, make: Callable[[], object] | None) -> bytes:
        """What the first process has made, and kept; `make`: this one's part of it."""
        points, trained = list(self.history.points), self.history.minutes
        if make:
            make()
            self.history.restore(points, trained)
        return processes.from_first(bytes)

    def _restored(self, content: bytes, restore: Callable[[Any], T]) -> T:
        kept = torch.load(io.BytesIO(content), weights_only=True)
        result, points = restore(kept["state"]), [HistoryPoint(**point) for point in kept["points"]]
        self.minutes |= kept["minutes"]
        self.history.restore([*self.history.points, *points], kept["trained"])
        return result

    def _made(self, name: str, make: Callable[[], T], state: Callable[[T], Any], file: Sealed) -> T:
        points, trained, before = list(self.history.points), self.history.minutes, dict(self.minutes)
        try:
            with self.stage(name):
                result = make()
            # Some of the minutes were of a run that was killed.
            self.minutes[name] = max(self.minutes[name], self.history.minutes - trained)
            kept = {
                "state": state(result),
                "points": [asdict(point) for point in self.history.points[len(points) :]],
                "trained": self.history.minutes,
                "minutes": {stage: took for stage, took in self.minutes.items() if stage not in before},
            }
            buffer = io.BytesIO()
            torch.save(kept, buffer)
            file.write(buffer.getvalue())
            processes.from_first(buffer.getvalue)
        except BaseException:
            self.history.restore(points, trained)
            raise
        return result

    def state(self, stage: str) -> Sealed:
        """Where the training `stage` is kept while it goes on. A longer training goes on with the distillation's."""
        return self._sealed(f"{stage}.state", stage in TRAINED and stage != "distil")

    def _sealed(self, name: str, for_this_long: bool) -> Sealed:
        of = [self.identity, name, self.start.duration if for_this_long else None]
        return Sealed(self.folder / name, json.dumps(of))

    def _forget(self, *patterns: str, but: list[str] | tuple[str, ...] = ()) -> None:
        """Remove files, but for those of some stages."""
        for path in (path for pattern in patterns for path in self.folder.glob(pattern)):
            if path.stem not in but and not path.is_dir():
                path.unlink(missing_ok=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        log.info("%s ...%s", name, self.forecast.place(name, self.minutes) if self.forecast else "")
        give_way()
        start = clock()
        yield
        self.minutes[name] = (clock() - start) / 60


def started(folder: Path) -> Start:
    """How the run in the output folder `folder` was started. Raises RecipeError where there is none."""
    return _read(folder / FOLDER)[0]


def _read(folder: Path) -> tuple[Start, str]:
    """How the run was started, and its identity."""
    from pydantic import TypeAdapter, ValidationError

    path = folder / RUN
    try:
        if path.exists() and not path.is_file():
            raise RecipeError(f"{path}: is no file; give --resume the output folder of a run")
        document = json.loads(path.read_text())
        json.dumps(document, allow_nan=False)
        _check_texts(document)
        start = TypeAdapter(Start).validate_python(document)
        return start, TypeAdapter(str).validate_python(document["identity"])
    except FileNotFoundError:
        reason = "no such file; give --resume the output folder of a run that got as far as its teacher's maps"
    except ValidationError:
        reason = "it is no record of a run, or one of another version; start the run anew, without --resume"
    except (OSError, ValueError, KeyError, RecursionError) as error:
        reason = f"{error}; start the run anew, without --resume"
    raise RecipeError(f"{path}: {reason}")


def _check_texts(value: Any) -> None:
    """Raises ValueError for a text that cannot be a path, since some of them are."""
    if isinstance(value, str) and b"\0" in os.fsencode(value):
        raise ValueError("it holds a text with a NUL in it")
    for inside in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_texts(inside)
