"""What 1,000 trials on 64 GPUs cost, and what becomes the limit: figures for docs/scale.md.

    python benchmarks/sweep_at_scale.py [FOLDER]

FOLDER is the output of a run whose training ran on a GPU (default: export/u2net-4mb); its stages are those of every
trial. Measured here: what Optuna's journal takes, and how long a sweep needs to decide on a trial. All else is
simulated, event by event: hosts of so many GPUs, a trial on each; who measures stops the others of its host. Assumed:
trials differ by up to 30 % in their training, drawn with a seed; each has as many cores to itself as the run had; disks
and network cost nothing.
"""

import heapq
import json
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

TRIALS, GPUS = 1000, 64
ONCE = ("teacher",)
"""Stages whose result all trials share."""
LEFT_OUT = ("tune", "tuned teacher")
"""Of a heavy model that is trained further first: done once, before a sweep of it."""
OPEN, WARM_UP, TURNS, REST, PROFILED = 1.0, 3, 10, 0.05, 23
"""Seconds to open a file in a process of its own, assumed; inferences, turns and seconds as the product has them."""
SPREAD = 0.3
STEP = 1.0
"""Seconds until the last neighbour has come to the end of its step."""


@dataclass(frozen=True)
class Trial:
    """Seconds before it measures latencies, and after."""

    before: float
    after: float


def trials(stages: dict[str, float], token: float, count: int, times: float = 1.0) -> list[Trial]:
    """Of so many minutes in each stage, where the distillation takes `times` as long."""
    chance = random.Random(0)
    others = sum(stages[name] for name in stages if name not in (*ONCE, *LEFT_OUT, "distil", "measure"))
    trained = [times * stages["distil"] * chance.uniform(1 - SPREAD, 1 + SPREAD) for _ in range(count)]
    return [Trial(60 * (others + each), max(0.0, 60 * stages["measure"] - token)) for each in trained]


def simulate(waiting: list[Trial], hosts: int, gpus: int, token: float, apart: int = 0) -> float:
    """Seconds until all are done, each measuring for `token` seconds while its host stands still otherwise; or on one
    of so many hosts `apart`, which do nothing else, while the rest of it, and the trials after it, go on here.

    A host's own clock stands still while one measures: so its events are known in advance, and hosts meet only where
    they take the next trial.
    """
    queue, paused = list(reversed(waiting)), [0.0] * hosts
    own: list[list[tuple[float, int, Trial | None]]] = [[] for _ in range(hosts)]
    count, free, end = 0, [0.0] * apart, 0.0

    def begin(host: int, now: float) -> None:
        nonlocal count
        if queue:
            trial, count = queue.pop(), count + 1
            heapq.heappush(own[host], (now + trial.before, count, trial))

    for host in [host for _ in range(gpus) for host in range(hosts)]:
        begin(host, 0.0)
    while any(own):
        host = min((each for each in range(hosts) if own[each]), key=lambda each: own[each][0][0] + paused[each])
        now, _, trial = heapq.heappop(own[host])
        end = max(end, now + paused[host])
        if trial is None:
            begin(host, now)
            continue
        if apart:
            measured = max(heapq.heappop(free), now) + token
            heapq.heappush(free, measured)
            end = max(end, measured)
        else:
            paused[host] += STEP + token
        count += 1
        heapq.heappush(own[host], (now + trial.after, count, None))
    return end


def token_seconds(report: dict[str, Any]) -> float:
    """For which a run is alone on its host, on a quiet one: what `take_turns` and `layer_times` do with the heavy model
    and the two files, by their latencies, and twice a second in which the load is noted."""
    runs_ms = {name: each["latency"]["p50_ms"] for name, each in report["measurements"].items()}
    files = [runs_ms[name] / 1e3 for name in ("teacher", "onnx", "tflite")]
    counted = report["recipe"]["measure"]["seconds"]
    turns = sum(OPEN + counted + (WARM_UP + TURNS) * each + TURNS * REST for each in files)
    return turns + OPEN + PROFILED * runs_ms["onnx"] / 1e3 + 2


def append(path: str, count: int) -> None:
    from optuna.storages.journal import JournalFileBackend

    backend = JournalFileBackend(path)
    for i in range(count):
        backend.append_logs([{"op_code": 8, "worker_id": "w", "trial_id": i, "user_attr": {"x": 1}}])


def appends_a_second(processes: int, count: int = 300) -> float:
    with TemporaryDirectory() as folder, ProcessPoolExecutor(processes) as pool:
        path = str(Path(folder) / "journal.log")
        list(pool.map(append, [path] * processes, [1] * processes))  # imports
        start = time.monotonic()
        list(pool.map(append, [path] * processes, [count // processes] * processes))
        return count / (time.monotonic() - start)


def decisions(counts: tuple[int, ...]) -> Iterator[tuple[int, float, float]]:
    """After so many trials: seconds to decide on one more and to note its result, and lines that this adds to the
    journal."""
    import optuna

    from compress.sweep.space import budgets, space
    from compress.sweep.study import JOURNAL, Study

    budget, _ = budgets(["1MB,2MB,4MB"])
    chance = random.Random(0)
    for count in counts:
        with TemporaryDirectory() as folder:
            study = Study(space(budget, None, "0.05:0.4", None, 10 * count), Path(folder), "scale", None)
            ranges = {
                "--budget": optuna.distributions.CategoricalDistribution(("1MB", "2MB", "4MB")),
                "--macs-share": optuna.distributions.FloatDistribution(0.05, 0.4, log=True),
            }
            done = [
                optuna.trial.create_trial(
                    params={
                        "--budget": chance.choice(("1MB", "2MB", "4MB")),
                        "--macs-share": chance.uniform(0.05, 0.4),
                    },
                    distributions=ranges,
                    values=[chance.random() for _ in range(3)],
                )
                for _ in range(count)
            ]
            study._study.add_trials(done)
            journal = Path(folder) / JOURNAL
            lines, start = len(journal.read_text().splitlines()), time.monotonic()
            for _ in range(5):
                asked = study.ask()
                assert asked is not None
                study.tell(asked.number, [chance.random() for _ in range(3)])
            took = (time.monotonic() - start) / 5
            yield count, took, (len(journal.read_text().splitlines()) - lines) / 5


def main(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    stages, token = report["minutes"], token_seconds(report)
    print(f"{folder.name}: alone on its host for {token:.0f} s of a trial")
    for processes in (1, 2, 4, 8, 16):
        print(f"journal, {processes} processes: {appends_a_second(processes):.0f} entries a second")
    for count, took, lines in decisions((100, 300, 1000)):
        print(f"after {count} trials: {took:.2f} s to decide on one and note its result, {lines:.0f} entries")
    images = report["data"]["train"] + report["data"]["unlabelled"]
    once = images * report["measurements"]["teacher"]["latency"]["p50_ms"] / 1e3
    made = trials(stages, token, TRIALS)
    length = sum(each.before + each.after for each in made) / TRIALS + token
    trained = 60 * stages["distil"]
    print(f"a trial: {length / 60:.1f} min, {trained / length:.0%} of it training")
    print(f"once for all: the heavy model's maps of {images} images, {once / 60:.0f} min")

    def say(what: str, seconds: float, ideal: float, more: str = "") -> None:
        hours = (seconds + once) / 3600
        print(f"{what}: {hours:.2f} h, {GPUS * hours:.0f} GPU hours, {max(0, 1 - ideal / seconds):.0%} lost{more}")

    for name, times in (("as measured", 1.0), ("a tenth of the training", 0.1)):
        made = trials(stages, token, TRIALS, times)
        ideal = simulate(made, GPUS, 1, 0.0)
        print(f"{name}:")
        say("  nothing ever waits", ideal, ideal)
        for gpus in (1, 2, 4, 8, 16):
            by_hand = sum((each.before + each.after) / gpus + token + STEP for each in made) * gpus / GPUS
            say(
                f"  {GPUS // gpus} hosts of {gpus}",
                simulate(made, GPUS // gpus, gpus, token),
                ideal,
                f"; by hand, without beginning and end, {(by_hand + once) / 3600:.2f} h",
            )
        for hosts in (1, 2, 4):
            say(f"  8 hosts of 8, {hosts} that measure", simulate(made, 8, 8, token, hosts), ideal)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "export" / "u2net-4mb")
