"""What Optuna decides and remembers of a sweep: which settings are tried, and what became of each."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import RecipeError
from compress.sweep.space import Axis, Setting, Space

JOURNAL = "journal.log"
_AGAIN = 100
"""Draws of settings that were tried before, after which there is nothing new to draw."""


@dataclass(frozen=True)
class Asked:
    """A trial to make. `number`: what Optuna calls it."""

    number: int
    setting: Setting


@dataclass(frozen=True)
class Told:
    """`state`: "done", "failed", "running", or "waiting"; `message`: why it failed."""

    setting: Setting
    state: str
    message: str = ""


class Study:
    """A study of bytes, milliseconds and IoU, in the folder's journal, or in the data base `storage`.

    Every combination of listed values is tried once, or as many as are asked for, in an order drawn by lot. Where a
    range is given, a tree-structured Parzen estimator draws (Ozaki et al. 2022, JAIR 73, 1209-1250), and what it drew
    is repeated with every seed. Raises RecipeError where the storage cannot be used.
    """

    def __init__(self, space: Space, folder: Path, name: str, storage: str | None):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self._optuna = space, optuna
        try:
            kept = optuna.storages.RDBStorage(storage) if storage else _journal(folder / JOURNAL)
            self._study = optuna.create_study(
                study_name=name,
                storage=kept,
                directions=["minimize", "minimize", "maximize"],
                load_if_exists=True,
            )
        except Exception as error:  # of a driver, of the data base, of the file system
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise RecipeError(f"{'--storage' if storage else folder / JOURNAL}: cannot be used: {reason}") from None
        # Seeded by what was drawn already: else a sweep that goes on would draw the same again.
        self._study.sampler = optuna.samplers.TPESampler(seed=len(self._all()))
        self._open: dict[int, Any] = {}
        self._enqueue()

    def unfinished(self) -> list[Asked]:
        """The trials that a driver which died had begun."""
        begun = [trial for trial in self._all() if trial.state.name == "RUNNING" and trial.number not in self._open]
        return [self._asked(self._optuna.Trial(self._study, trial._trial_id)) for trial in begun]

    def ask(self) -> Asked | None:
        """The next trial to make; None where all that were asked for are begun."""
        for _ in range(_AGAIN):
            tried = {_key(each.setting) for each in self.told() if each.state != "waiting"}
            waiting = any(trial.state.name == "WAITING" for trial in self._all())
            if not waiting and (not self.space.ranges or len(tried) >= self.space.trials):
                return None
            asked = self._asked(self._study.ask())
            if waiting or _key(asked.setting) not in tried:
                self._repeat(asked.setting)
                return asked
            self.tell(asked.number, None)
        return None

    def tell(self, number: int, values: Sequence[float] | None, failed: str = "") -> None:
        """What a trial gave: bytes, milliseconds and IoU; or why it gave nothing, or nothing new."""
        trial = self._open.pop(number)
        if values is None:
            trial.set_user_attr("failed", failed)
            self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(number, list(values))

    def told(self) -> list[Told]:
        """Of every setting the latest."""
        states = {"COMPLETE": "done", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}
        found = {}
        for trial in self._all():
            setting = self._setting({**trial.system_attrs.get("fixed_params", {}), **trial.params})
            one = Told(setting, states[trial.state.name], trial.user_attrs.get("failed", ""))
            nothing_new = one.state == "failed" and not one.message
            if len(setting) == len(self.space.axes) and not nothing_new:
                found[_key(setting)] = one
        return list(found.values())

    def _all(self) -> list[Any]:
        return self._study.get_trials(deepcopy=False)

    def _asked(self, trial: Any) -> Asked:
        self._open[trial.number] = trial
        return Asked(trial.number, self._setting({axis.flag: _suggested(trial, axis) for axis in self.space.axes}))

    def _setting(self, params: dict[str, Any]) -> dict[str, str]:
        given = {axis.flag: params[axis.flag] for axis in self.space.axes if axis.flag in params}
        return {flag: value if isinstance(value, str) else f"{value:.4g}" for flag, value in given.items()}

    def _enqueue(self) -> None:
        """What is not there yet of a grid; and what failed, where nothing has succeeded."""
        told = self.told()
        again = [each.setting for each in told if each.state == "failed"]
        if not any(each.state == "done" for each in told):
            for setting in again:
                self._study.enqueue_trial(self._params(setting))
        if self.space.ranges:
            return
        known, grid = {_key(each.setting) for each in told}, self.space.grid()
        if self.space.trials < len(grid):
            random.Random(0).shuffle(grid)
        for setting in grid[: self.space.trials]:
            if _key(setting) not in known:
                self._study.enqueue_trial(setting)

    def _params(self, setting: Setting) -> dict[str, Any]:
        return {axis.flag: setting[axis.flag] if axis.values else float(setting[axis.flag]) for axis in self.space.axes}

    def _repeat(self, setting: Setting) -> None:
        """With the other seeds, as far as there are trials left."""
        seeds = next((axis for axis in self.space.axes if axis.flag == "--seed"), None)
        if seeds is None or not self.space.ranges:
            return
        known = {_key(each.setting) for each in self.told()}
        for seed in seeds.values:
            other = {**setting, seeds.flag: seed}
            if _key(other) not in known and len(known) < self.space.trials:
                known.add(_key(other))
                self._study.enqueue_trial(self._params(other))


def _suggested(trial: Any, axis: Axis) -> Any:
    if axis.values:
        return trial.suggest_categorical(axis.flag, axis.values)
    return trial.suggest_float(axis.flag, axis.low, axis.high, log=True)


def _key(setting: Setting) -> tuple[str, ...]:
    return tuple(setting.values())


def _journal(path: Path) -> Any:
    """Of a driver that was killed while it wrote, without the lock that it left and the line that it began. No other
    has the folder."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if path.exists():
        whole = path.read_bytes()
        with path.open("rb+") as file:
            file.truncate(whole.rfind(b"\n") + 1)
    return JournalStorage(JournalFileBackend(str(path)))
