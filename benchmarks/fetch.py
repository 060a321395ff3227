"""What `compress fetch` takes beside curl, and what `list` and `fetch` take of a registry of 200 versions of 20 names.

    python benchmarks/fetch.py [REPEATS] [--write]

A model of 4 MB and what an app needs beside it are fetched from a web server on this machine, each time into an empty
folder with an empty cache, by the command and by curl in turns; `--write` puts the medians into results/fetch.json.
The server writes what it is asked for from a process of its own.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests" / "registry"))
RESULT = HERE / "results" / "fetch.json"
SERVE = "import http.server as s; s.test(s.SimpleHTTPRequestHandler, s.ThreadingHTTPServer, 'HTTP/1.1', 0, '127.0.0.1')"
COMPRESS = [sys.executable, "-m", "compress"]
NAMES, VERSIONS, MODEL_BYTES = 20, 200, 4_000_000


def release(folder: Path, name: str, size: int) -> None:
    from conftest import write_release

    write_release(folder, size=size, name=name)


def publish(folder: Path, registry: Path, version: str) -> None:
    from compress.registry.folder import Folder
    from compress.registry.publish import publish as call

    call(folder, Folder(registry), version=version)


def fill(registry: Path, scratch: Path) -> None:
    """20 names, each with 200 versions: the first published, the others its copies with the numbers that follow."""
    from compress.registry.index import FILE, LOG, Event, Release, encoded, made_of
    from compress.registry.release import sum_of

    for number in range(NAMES):
        name = f"model-{number}"
        release(scratch / name, name, 1_000)
        publish(scratch / name, registry, "1.0.0")
        folder, events = registry / name, []
        for minor in range(VERSIONS):
            version = f"1.{minor}.0"
            if minor:
                shutil.copytree(folder / "1.0.0", folder / version, copy_function=os.link)
                manifest = json.loads((folder / version / "manifest.json").read_text()) | {"version": version}
                (folder / version / "manifest.json").unlink()
                (folder / version / "manifest.json").write_bytes(encoded(manifest))
            data = (folder / version / "manifest.json").read_bytes()
            at = f"2026-01-01T00:00:00.{minor:06d}+00:00"
            events.append(Event(at, version, Release(sum_of(data), len(data), at)))
            (folder / LOG / f"{minor:06d}.json").write_bytes(encoded(events[-1].to_json()))
        (folder / FILE).write_bytes(encoded(made_of(name, events).to_json()))


def timed(cache: Path, *command: object) -> tuple[float, float]:
    """Seconds on the clock, and of the processor, that a command takes."""
    environment = {**os.environ, "COMPRESS_CACHE": str(cache)}
    start, before = time.perf_counter(), os.times()
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, env=environment)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, used


def measured(repeats: int) -> dict[str, tuple[float, float]]:
    """Medians in seconds."""
    found: dict[str, list[tuple[float, float]]] = {}
    with TemporaryDirectory(prefix="compress-") as scratch:
        folder = Path(scratch)
        registry = folder / "registry"
        release(folder / "run", "big", MODEL_BYTES)
        publish(folder / "run", registry, "1.0.0")
        fill(registry, folder / "made")
        serve = [sys.executable, "-u", "-c", SERVE]
        server = subprocess.Popen(serve, cwd=registry, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split("(")[1].split("/)")[0]
            for _ in range(repeats):
                for what, took in turn(url, registry, folder):
                    found.setdefault(what, []).append(took)
        finally:
            server.terminate()
            server.wait()
    return {what: (median(wall for wall, _ in took), median(cpu for _, cpu in took)) for what, took in found.items()}


def turn(url: str, registry: Path, folder: Path) -> Iterator[tuple[str, tuple[float, float]]]:
    """Each command once; the first fetch into an empty folder with an empty cache."""
    cache, out, curled = folder / "cache", folder / "out", folder / "curl"
    for gone in (cache, out, curled):
        shutil.rmtree(gone, ignore_errors=True)
    curled.mkdir()
    names = ("manifest.json", "model.tflite", "labels.txt", "golden.npz")
    files = [word for name in names for word in ("-O", f"{url}/big/1.0.0/{name}")]
    yield "curl, the same files", timed(cache, "curl", "-s", "--output-dir", curled, *files)
    yield "compress --version", timed(cache, *COMPRESS, "--version")
    fetch = [*COMPRESS, "fetch", "big@1.0.0", "--from", url, "--format", "tflite", "--out", out]
    yield "compress fetch", timed(cache, *fetch)
    yield "compress fetch, a second time", timed(cache, *fetch)
    for what, source in (("a folder", registry), ("http", url)):
        shutil.rmtree(out)
        yield f"compress list, {what}", timed(cache, *COMPRESS, "list", "--from", source)
        one = [*COMPRESS, "fetch", "model-7@^1.2", "--from", source, "--out", out]
        yield f"compress fetch NAME@^1.2, {what}", timed(cache, *one)


def main() -> None:
    numbers = [word for word in sys.argv[1:] if word.isdigit()]
    repeats = int(numbers[0]) if numbers else 11
    found = measured(repeats)
    for what, (wall, cpu) in found.items():
        print(f"{what:36} {wall:.3f} s, {cpu:.3f} s of the processor")
    if "--write" in sys.argv:
        write(found, repeats)


def write(found: dict[str, tuple[float, float]], repeats: int) -> None:
    from compress.machine import cores, processor

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout
    result = {
        "title": "Fetching a release",
        "about": f"Medians of {repeats} runs in turns, start of the process included: a TFLite file of 4 MB with "
        "labels, golden input and manifest from a web server on the same machine, into an empty folder with an empty "
        "cache; then `list` and `fetch` of a registry with 200 versions of each of 20 names. Where other work runs, "
        "seconds of the processor are nearer to what the clock shows on a quiet machine.",
        "columns": [
            {"name": "what"},
            {"name": "seconds on the clock", "digits": 3},
            {"name": "of the processor", "digits": 3},
        ],
        "runs": [
            {
                "command": f"python benchmarks/fetch.py {repeats} --write",
                "commit": commit.strip(),
                "date": date.today().isoformat(),
                "machine": {"processor": processor(), "cores": cores(), "instructions": "instructions not recorded"},
                "old": None,
                "note": f"load average {os.getloadavg()[0]:.1f} at the end",
                "rows": [[what, round(wall, 4), round(cpu, 4)] for what, (wall, cpu) in found.items()],
            }
        ],
    }
    RESULT.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
