"""Every public architecture the whole way, and the table of what became of each: docs/models.md.

    python tests/zoo/zoo.py [PART OF A NAME ...]

With parts of names, those alone are tried anew; the table is written after each. One that takes too much time or memory
is ended. Exit code 1: one that went the whole way before does not any more.
"""

import json
import multiprocessing
import os
import resource
import sys
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from architectures import ARCHITECTURES
from whole_way import Outcome, whole_way

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = Path(__file__).parent / "outcomes.json", ROOT / "docs" / "models.md"
SECONDS, GIGABYTES = 180, 6
"""Of a core, and of memory, that one may take."""
WORKERS = min(2, os.cpu_count() or 1)
"""How many are tried at once."""


def main(parts: list[str]) -> int:
    known, lost = read(), []
    with ThreadPoolExecutor(WORKERS) as threads:
        wanted = [name for name in ARCHITECTURES if not parts or any(part.lower() in name.lower() for part in parts)]
        waiting = {threads.submit(alone, name): name for name in wanted}
        for done in as_completed(waiting):
            name, outcome = waiting[done], done.result()
            print(f"{name}: {'the whole way' if outcome.whole else outcome.reason}", flush=True)
            if name in known and known[name].whole and not outcome.whole:
                lost.append(name)
            known = {each: outcome if each == name else known[each] for each in ARCHITECTURES if each in {*known, name}}
            RESULTS.write_text(json.dumps({key: asdict(each) for key, each in known.items()}, indent=1) + "\n")
            PAGE.write_text(page(known))
    for name in lost:
        print(f"{name} went the whole way before", file=sys.stderr)
    return 1 if lost else 0


def read() -> dict[str, Outcome]:
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return {name: Outcome(**outcome) for name, outcome in found.items()}


of_thread = threading.local()
"""`pool`: a process that goes from one architecture to the next, until one is too much for it."""


def alone(name: str) -> Outcome:
    if not hasattr(of_thread, "pool"):
        of_thread.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    try:
        return of_thread.pool.submit(tried, name).result()
    except BrokenProcessPool:
        del of_thread.pool
        return Outcome(reason=f"it takes more than {SECONDS} seconds of a core, or {GIGABYTES} GB of memory")


def tried(name: str) -> Outcome:
    warnings.simplefilter("ignore")
    spent = resource.getrusage(resource.RUSAGE_SELF)
    limit(resource.RLIMIT_CPU, int(spent.ru_utime + spent.ru_stime) + SECONDS)
    limit(resource.RLIMIT_DATA, GIGABYTES << 30)
    make, size = ARCHITECTURES[name]
    with TemporaryDirectory() as folder:
        try:
            return whole_way(make, size, Path(folder))
        except Exception as error:  # of the package, or a fault of ours
            return Outcome(reason=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


def limit(what: int, most: int) -> None:
    resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


def page(found: dict[str, Outcome]) -> str:
    rows = [
        f"| {name} | {each.parameters:.1f} | {'yes' if each.loads else 'no'} | {_way(each)} |"
        for name, each in found.items()
    ]
    loads, whole = sum(each.loads for each in found.values()), sum(each.whole for each in found.values())
    return f"""# Architectures that were tried

{len(found)} public architectures, at their packages' defaults and with the weights that they are born with; those
without a package in front are written as their papers describe them (`tests/zoo/papers.py`). "Loads": the traced
network gives what the module gives. "The whole way": planned to half the bytes, cut, trained for one step, quantized,
written as ONNX and TFLite, each file read back and equal to the graph, and every layer of both run within one unit of
the integers that it should give. {loads} load, {whole} go the whole way. Random weights say nothing of accuracy, so
none is stated. One that takes more than {SECONDS} seconds of a core, or {GIGABYTES} GB, is given up.

`make test-zoo` tries them again and writes this page. A model of yours that is not here is read if it consists of
[these operators](operators.md); `compress inspect` says.

| architecture | million parameters | loads | the whole way |
|---|---|---|---|
{chr(10).join(rows)}
"""


def _way(each: Outcome) -> str:
    if each.whole:
        return f"{each.layers[0]} layers right, {each.bytes / 1e6:.2f} MB"
    return each.reason.replace("|", "/")[:300]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
