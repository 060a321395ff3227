"""Many runs of one model: which are made, one after the other or at once, until all are there."""

import logging
import os
import re
import shlex
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress.budget import Limit
from compress.errors import RecipeError, SweepError, WriteError
from compress.files import alone_in, check_writable, content_hash, identity, read_json
from compress.report.summary import interval
from compress.report.words import short_bytes, short_ms
from compress.sweep.executor import Ended, Executor
from compress.sweep.local import log_of
from compress.sweep.page import FILE, write_page
from compress.sweep.space import Space, name_of
from compress.sweep.study import Asked, Study
from compress.sweep.trials import FOLDER, Trial, finished, job_of
from compress.terminal.progress import tqdm

log = logging.getLogger("compress")

_WAIT = 1.0  # seconds
_STARTS = 10
"""Of a trial that is killed each time, after which it has failed."""
_HOPELESS = 3
"""Trials that failed, after which a sweep stops where none has succeeded."""
_PAGES_APART = 10.0  # seconds
_BAR = "{n_fmt} of {total_fmt} trials |{bar:20}| {elapsed}{postfix}"
_STAGE = re.compile(r"\(stage (\d+ of \d+)")
_NAMED = 3
"""Running trials whose stages there is room to tell."""


@dataclass(frozen=True)
class Order:
    """What a user asks for. `given`: what every run is given, the model first; `trusted`: of that, what it is given
    again when it goes on."""

    model: Path
    recipe: Path | None
    space: Space
    limits: tuple[Limit, ...]
    given: tuple[str, ...]
    trusted: tuple[str, ...]
    out: Path
    storage: str | None = None
    cpus: int = 1
    gpus: int = 0

    def described(self) -> dict[str, Any]:
        """What makes it this sweep: how many trials are made, where and by whom, does not. A page travels: folders are
        told by name alone, and where they lie by a sum."""
        contents = {"MODEL": self.model, "the recipe": self.recipe}
        return {
            "MODEL": self.model.name,
            **{f"content of {what}": content_hash(path) for what, path in contents.items() if path and path.is_file()},
            **{axis.flag: str(axis) for axis in self.space.axes},
            "limits": ", ".join(limit.text for limit in self.limits),
            "options": shlex.join(Path(word).name if os.path.isabs(word) else word for word in self.given[1:]),
            "sum of the options with all paths": identity("options", 1, given=self.given),
        }


def sweep(order: Order, executor: Executor) -> list[Trial]:
    """Make all trials, and `sweep.json` and `sweep.html` in the folder `order.out`; go on with what is there.

    Raises RecipeError where another sweep is in the folder, WriteError where it cannot be written or another process
    writes there, and SweepError, with what one of them said, where all trials fail.
    """
    from optuna.exceptions import OptunaError

    try:
        check_writable(order.out)
        with alone_in(order.out / FOLDER, order.out):
            return _made(order, executor)
    except (OSError, OptunaError) as error:  # a full disk, a data base that went away
        reason = str(error).partition("\n")[0]
        raise WriteError(f"{order.out}: {reason}; mend that, and the same command goes on") from None
    finally:
        executor.close()


def _made(order: Order, executor: Executor) -> list[Trial]:
    described = order.described()
    _check_same(order.out, described)
    name = identity("sweep", 1, sweep=described, folder=str(order.out.resolve()))
    study = Study(order.space, order.out, f"compress {name}", order.storage)
    return _Course(order, executor, study, described).run()


def _check_same(out: Path, described: dict[str, Any]) -> None:
    """Raises RecipeError, naming the first thing that differs."""
    try:
        before = read_json(out / FILE)["sweep"]
        differs = next((key for key in {**before, **described} if before.get(key) != described.get(key)), None)
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise RecipeError(f"{out / FILE}: was not written by a sweep; choose another folder with --out") from None
    if differs is not None:
        values = [f"{differs} {one.get(differs) or 'not given'}" for one in (before, described)]
        raise RecipeError(
            f"{out}: holds another sweep: {values[0]:.300} there, {values[1]:.300} here; choose another --out"
        )


@dataclass
class _Course:
    order: Order
    executor: Executor
    study: Study
    described: dict[str, Any]
    running: dict[str, Asked] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    took: list[float] = field(default_factory=list)
    """Seconds of each trial that was made from its beginning."""
    done: dict[str, Trial] = field(default_factory=dict)
    written: float = 0.0

    def run(self) -> list[Trial]:
        again = self.study.unfinished()
        self._take_up()
        self._write()
        with tqdm(total=self.order.space.trials, bar_format=_BAR, disable=not sys.stderr.isatty()) as bar:
            while True:
                more = self._fill(again)
                bar.n = len(self._ended())
                bar.set_postfix_str(self._outlook())
                if not self.running and not more:
                    break
                for ended in self.executor.wait(_WAIT):
                    self._end(ended)
                self._check_hope()
                self._write(_PAGES_APART)
        self._check_hope(last=True)
        self._write()
        return self.trials()

    def trials(self) -> list[Trial]:
        """All that are known of, by name."""
        told = self.study.told()
        plain = [Trial(name_of(one.setting), one.setting, one.state, one.message) for one in told]
        return [self.done.get(one.name, one) for one in plain]

    def _take_up(self) -> None:
        """What is told as done, from its folder."""
        for one in self.study.told():
            if one.state == "done" and (record := finished(one.setting, self.order.out, self.order.limits)):
                self.done[name_of(one.setting)] = Trial(name_of(one.setting), one.setting, "done", "", record)

    def _fill(self, again: list[Asked]) -> bool:
        """Begin as many trials as there is room for; whether there may be more."""
        while len(self.running) < self.executor.slots():
            asked = again.pop(0) if again else self.study.ask()
            if asked is None:
                return False
            if not self._tell(asked):
                self.running[name_of(asked.setting)] = asked
                self._start(asked)
        return True

    def _start(self, asked: Asked) -> None:
        order, name = self.order, name_of(asked.setting)
        self.starts[name] = self.starts.get(name, 0) + 1
        self.began.setdefault(name, time.monotonic())
        given, trusted = order.given, order.trusted
        self.executor.submit(job_of(asked.setting, order.out, given, order.limits, trusted, order.cpus, order.gpus))

    def _tell(self, asked: Asked) -> bool:
        """Whether its folder holds its result, which is then told."""
        record = finished(asked.setting, self.order.out, self.order.limits)
        if record is None:
            return False
        name = name_of(asked.setting)
        trial = Trial(name, asked.setting, "done", "", record)
        values = trial.values()
        self.study.tell(asked.number, values, "its size, its latency or its IoU was not measured")
        if values:
            self.done[name] = trial
            self._say(trial)
        return True

    def _end(self, ended: Ended) -> None:
        asked = self.running.pop(ended.name)
        if ended.code != 2 and self._tell(asked):
            if self.starts[ended.name] == 1:
                self.took.append(time.monotonic() - self.began[ended.name])
            return
        if ended.code is None and self.starts[ended.name] < _STARTS:
            log.info("%s: was killed; it goes on", ended.name)
            self.running[ended.name] = asked
            self._start(asked)
            return
        killed = f"was killed {_STARTS} times; is there enough memory?"
        said = killed if ended.code is None else ended.said.removeprefix("compress: ") or "it said nothing"
        self.study.tell(asked.number, None, said)
        self._say(Trial(ended.name, asked.setting, "failed", said))

    def _say(self, trial: Trial) -> None:
        found = trial.measured
        what = f"failed: {trial.message}"
        if trial.record and found.size_bytes and found.latency:
            verdict = "meets all limits" if trial.passed else "misses a limit"
            figures = f"{short_bytes(found.size_bytes)}, {short_ms(found.latency.p50_ms)}"
            what = f"{figures}, IoU {interval(found.iou)}; {verdict}"
        count = f"{len(self._ended())} of {self.order.space.trials}"
        log.info("%s", ": ".join([count, trial.name, what]) + self._left())

    def _ended(self) -> list[Trial]:
        return [trial for trial in self.trials() if trial.state in ("done", "failed")]

    def _outlook(self) -> str:
        """What runs, each with its stage as its own log has it, and the time left."""
        names = list(self.running)
        shown = [name + _stage(self.order.out / FOLDER / name) for name in names[:_NAMED]]
        more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
        return ", ".join([*shown, *more]) + self._left()

    def _left(self) -> str:
        """ "; about 12 min left", from the trials that were made so far."""
        left = self.order.space.trials - len(self._ended())
        if not self.took or left <= 0:
            return ""
        mean, now = sum(self.took) / len(self.took), time.monotonic()
        spent = sum(min(mean, now - self.began[name]) for name in self.running)
        return f"; about {words((left * mean - spent) / max(1, self.executor.slots()))} left"

    def _check_hope(self, last: bool = False) -> None:
        """Raises SweepError where everything fails: what went wrong for three alike will for others; what differs, as
        budgets that are too small do, may not."""
        told = self.study.told()
        failed = [one for one in told if one.state == "failed"]
        alike = max(Counter(one.message for one in failed).values(), default=0)
        if failed and all(one.state != "done" for one in told) and (last or alike >= _HOPELESS):
            self._write()
            first = failed[0]
            raise SweepError(f"all {len(failed)} trials so far failed, {name_of(first.setting)} thus: {first.message}")

    def _write(self, apart: float = 0.0) -> None:
        if time.monotonic() - self.written >= apart or not self.written:
            write_page(self.trials(), self.described, self.order.space.trials, self.order.out)
            self.written = time.monotonic()


def _stage(folder: Path) -> str:
    """For example " (stage 4 of 9)"; nothing before the first."""
    try:
        found = _STAGE.findall(log_of(folder).read_text(errors="replace"))
    except OSError:
        return ""
    return f" (stage {found[-1]})" if found else ""


def words(seconds: float) -> str:
    """For example "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
