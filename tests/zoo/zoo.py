"""Every public architecture the whole way, and the table of what became of each: docs/models.md.

    python tests/zoo/zoo.py [PART OF A NAME ...]

With parts of names, those alone are tried anew; the table is written after each. Each has a process of its own, which
ends where it takes too much time or memory. Exit code 1: one that went the whole way before does not any more.
"""

import json
import multiprocessing
import resource
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
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


def main(parts: list[str]) -> int:
    before = (
        {name: Outcome(**found) for name, found in json.loads(RESULTS.read_text()).items()} if RESULTS.exists() else {}
    )
    known, lost = dict(before), []
    for name in ARCHITECTURES:
        if parts and not any(part.lower() in name.lower() for part in parts):
            continue
        known[name] = alone(name)
        print(f"{name}: {'the whole way' if known[name].whole else known[name].reason}", flush=True)
        if name in before and before[name].whole and not known[name].whole:
            lost.append(name)
        known = {key: known[key] for key in ARCHITECTURES if key in known}
        RESULTS.write_text(json.dumps({key: asdict(each) for key, each in known.items()}, indent=1) + "\n")
        PAGE.write_text(page(known))
    for name in lost:
        print(f"{name} went the whole way before", file=sys.stderr)
    return 1 if lost else 0


def alone(name: str) -> Outcome:
    """In a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), limited) as pool:
        try:
            return pool.submit(tried, name).result()
        except BrokenProcessPool:
            return Outcome(reason=f"it takes more than {SECONDS} seconds of a core")


def limited() -> None:
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_DATA, (GIGABYTES << 30,) * 2)


def tried(name: str) -> Outcome:
    make, size = ARCHITECTURES[name]
    with TemporaryDirectory() as folder:
        try:
            return whole_way(make, size, Path(folder))
        except MemoryError:
            return Outcome(reason=f"it takes more than {GIGABYTES} GB of memory")
        except Exception as error:  # of the package, or a fault of ours
            return Outcome(reason=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


def page(found: dict[str, Outcome]) -> str:
    rows = [
        f"| {name} | {each.parameters:.1f} | {'yes' if each.loads else 'no'} | {_way(each)} |"
        for name, each in found.items()
    ]
    loads, whole = sum(each.loads for each in found.values()), sum(each.whole for each in found.values())
    return f"""# Architectures that were tried

{len(found)} public architectures, at their packages' defaults and with the weights that they are born with. "Loads":
the traced network gives what the module gives. "The whole way": planned to half the bytes, cut, trained for one step,
quantized, written as ONNX and TFLite, each file read back and equal to the graph, and every layer of both run within
one unit of the integers that it should give. {loads} load, {whole} go the whole way. Random weights say nothing of
accuracy, so none is stated.

`make test-zoo` tries them again and writes this page. A model of yours that is not
here is read if it consists of [these operators](operators.md); `compress inspect` says.

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
