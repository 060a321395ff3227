"""Trials as tasks of a Ray cluster: each is a process of whichever node has the cores and GPUs that it needs.

    python -m compress.sweep.ray ADDRESS PATH...

says in JSON which nodes a cluster has, of which versions, and which of the paths each does not see. Where no cluster
answers, Ray's native code says so late and at length: so a process of its own asks first, within a time limit.
"""

import json
import logging
import os
import platform
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from compress.errors import SweepError, WriteError
from compress.files import cache_folder
from compress.runtime import deadline
from compress.sweep.executor import Ended, Job
from compress.sweep.local import LocalExecutor

_TO_CONNECT = 25
"""Seconds in which a cluster has to answer."""
_TO_TELL = 60
"""Seconds in which its nodes have to say what they are: each starts a process for that."""
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "^"}
"""Nothing is told to Ray's makers, and what it says of nodes that die is not printed."""
_TO_COME_BACK = 10
"""Times that a head which is gone is looked for, a second or two apart."""
_REFUSED = re.compile(r"Version mismatch.*Ray: (\S+)\s+Python: (\S+).*Ray: (\S+)\s+Python: (\S+)", re.DOTALL)


class RayExecutor:
    """At most so many `jobs` at once (None: all that the nodes have room for) of so many cores and GPUs each, which
    write into the folder `out`. `address`: of a cluster, as Ray has it ("auto", "head:6379", "ray://head:10001"); None:
    one of this host alone is started, and ends with this process.

    A worker or a node that dies ends its job without a code; Ray itself starts none again. Raises SweepError: Ray is
    not installed, no cluster answers, its versions are others, a node does not see the folder, or none has the cores
    and GPUs.
    """

    def __init__(self, address: str | None, out: Path, jobs: int | None = None, cpus: int = 1, gpus: int = 0):
        self._jobs, self._cpus, self._gpus = jobs, cpus, gpus
        self._running: dict[Any, str] = {}  # names of jobs by what Ray calls their results
        if address is not None:
            _check(address, out)
        self._ray = _connected(address or "local")
        self._task = self._ray.remote(max_retries=0)(_work)
        self._head = self._ray.get_runtime_context().gcs_address
        if not self.slots():
            self.close()
            wanted = f"{cpus} cores" + (f" and {gpus} GPUs" if gpus else "")
            raise SweepError(f"no node of the cluster has {wanted}: start one, or ask for less")

    def slots(self) -> int:
        self._check_head()
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        room = sum(_fitting(node, self._cpus, self._gpus) for node in nodes)
        return room if self._jobs is None else min(room, self._jobs)

    def submit(self, job: Job) -> None:
        self._check_head()
        task = self._task.options(name=job.name, num_cpus=job.cpus, num_gpus=job.gpus)
        self._running[task.remote(job, os.getcwd(), str(cache_folder()))] = job.name

    def wait(self, seconds: float) -> list[Ended]:
        if not self._running:
            return []
        self._check_head()
        self._ray.wait(list(self._running), timeout=seconds)
        ended, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._ended(each, self._running.pop(each)) for each in ended]

    def close(self) -> None:
        for each in self._running:
            self._ray.cancel(each, force=True)
        self._running.clear()
        self._ray.shutdown()

    def _check_head(self) -> None:
        """Raises SweepError where it is gone: Ray itself would end this process, with words of its own."""
        host, _, port = self._head.rpartition(":")
        for _ in range(_TO_COME_BACK):
            try:
                socket.create_connection((host, int(port)), 1).close()
                return
            except OSError:
                time.sleep(1)
        raise SweepError(f"the head of the cluster at {self._head} is gone; the same command goes on with another")

    def _ended(self, result: Any, name: str) -> Ended:
        try:
            return self._ray.get(result)
        except self._ray.exceptions.RayTaskError as error:  # not the worker, but what it was to do
            return Ended(name, 2, str(error.cause))
        except self._ray.exceptions.RayError as error:
            return Ended(name, None, type(error).__name__)


def _work(job: Job, folder: str, cache: str) -> Ended:
    """In a worker on a node, which takes the job along when it dies."""
    os.chdir(folder)
    os.environ["COMPRESS_CACHE"] = cache
    here = LocalExecutor(1)
    here.submit(job)
    while not (ended := here.wait(_TO_TELL)):
        pass
    return ended[0]


def _connected(address: str) -> Any:
    """The module `ray`. Raises SweepError."""
    os.environ |= _QUIET
    import ray

    dashboard = False if address == "local" else None  # None: as the cluster has it
    try:
        ray.init(address=address, include_dashboard=dashboard, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:  # of many kinds
        raise SweepError(_why(address, str(error))) from None
    return ray


def _why(address: str, said: str) -> str:
    if found := _REFUSED.search(said):
        there, here = (f"Ray {ray} and Python {python}" for ray, python in (found.groups()[:2], found.groups()[2:]))
        return f"the cluster at {address} has {there}, this process {here}: install the same"
    return f"{address}: {said.strip().partition(chr(10))[0]}"


def _fitting(resources: dict[str, float], cpus: int, gpus: int) -> int:
    """How many jobs a node has room for."""
    rooms = [resources.get(kind, 0) // each for kind, each in (("CPU", cpus), ("GPU", gpus)) if each]
    return int(min(rooms, default=0))


def _check(address: str, out: Path) -> None:
    """Raises SweepError with the first reason why a cluster cannot be used."""
    with _marks(out, cache_folder()) as marks:
        seen = (os.path.join(os.getcwd(), ""), *map(str, marks))
        command = [sys.executable, "-P", "-m", "compress.sweep.ray", address, *seen]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    said: dict[str, Any] = answers[-1] if answers else {}
    if "error" in said:
        raise SweepError(said["error"])
    if "nodes" not in said:
        raise SweepError(f"no Ray cluster answers at {address}; is one started there?")
    if said["silent"]:
        raise SweepError(f"node {said['silent'][0]} of the cluster gave no answer in {_TO_TELL} s; is it busy?")
    for node in said["nodes"]:
        _check_node(node)


def _check_node(node: dict[str, Any]) -> None:
    ours, theirs = _versions(), node["versions"]
    wrong = [name for name in ours if theirs[name] != ours[name]]
    if wrong:
        there, here = (", ".join(f"{name} {of[name]}" for name in wrong) for of in (theirs, ours))
        raise SweepError(f"node {node['address']} of the cluster has {there}, this process {here}: install the same")
    if node["unseen"]:
        folder = os.path.dirname(node["unseen"][0])
        raise SweepError(f"node {node['address']} of the cluster does not see {folder}: all have to share its disk")


@contextmanager
def _marks(*folders: Path) -> Iterator[list[Path]]:
    """A file in each of the folders, or where it is to be made, by which another host can tell whether it sees them."""
    there = [next(each for each in (folder, *folder.parents) if each.is_dir()) for folder in folders]
    marks = [folder / f"seen-{secrets.token_hex(4)}.partial" for folder in there]
    try:
        for mark in marks:
            _touch(mark)
        yield marks
    finally:
        for mark in marks:
            mark.unlink(missing_ok=True)


def _touch(path: Path) -> None:
    try:
        path.touch()
    except OSError as error:
        raise WriteError(f"{path.parent}: cannot be written: {error.strerror}; choose another folder") from None


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"Python": platform.python_version(), "Ray": "missing", "compress": "missing"}
    for name, package in (("Ray", "ray"), ("compress", "compress-mobile")):
        with suppress(PackageNotFoundError):
            found[name] = version(package)
    return found


def main(address: str, *paths: str) -> None:
    deadline.prepare_child()
    deadline.start(_TO_CONNECT)
    try:
        ray = _connected(address)
    except SweepError as error:
        print(json.dumps({"error": str(error)}))
        return
    deadline.start(2 * _TO_TELL)

    def tell(node: str) -> dict[str, Any]:  # sent by value: a node may have no compress
        unseen = [path for path in paths if not os.path.exists(path)]
        return {"address": node, "versions": _versions(), "unseen": unseen}

    at = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    asked = {
        ray.remote(num_cpus=0)(tell)
        .options(scheduling_strategy=at(node["NodeID"], soft=False))
        .remote(node["NodeManagerAddress"]): node["NodeManagerAddress"]
        for node in ray.nodes()
        if node["Alive"]
    }
    answers, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_TO_TELL)
    told = []
    for each in answers:
        with suppress(ray.exceptions.RayError):  # it has died since
            told.append(ray.get(each))
    print(json.dumps({"nodes": told, "silent": [asked[each] for each in silent]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
