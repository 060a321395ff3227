"""What `compress fetch` takes beside curl, and what `list` and `fetch` take of a registry of 200 versions of 20 names.

    python benchmarks/fetch.py [REPEATS] [--write]

A model of 4 MB and what an app needs beside it are fetched from a web server on this machine, each time into an empty
folder with an empty cache, by the command and by curl in turns; `--write` puts the medians into results/fetch.json.
The server writes what it is asked for from a process of its own.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
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
                shutil.copytree(folder / "1.0.0", folder / version)
                manifest = json.loads((folder / version / "manifest.json").read_text()) | {"version": version}
                (folder / version / "manifest.json").chmod(0o644)
                (folder / version / "manifest.json").write_bytes(encoded(manifest))
            data = (folder / version / "manifest.json").read_bytes()
            at = f"2026-01-01T00:00:00.{minor:06d}+00:00"
            events.append(Event(at, version, Release(sum_of(data), len(data), at)))
            (folder / LOG / f"{minor:06d}.json").write_bytes(encoded(events[-1].to_json()))
        (folder / FILE).write_bytes(encoded(made_of(name, events).to_json()))


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def run(*command: object, cache: Path) -> None:
    environment = {**os.environ, "COMPRESS_CACHE": str(cache)}
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, env=environment)


def measured(repeats: int) -> dict[str, float]:
    """Medians in seconds."""
    found: dict[str, list[float]] = {}

    def timed(what: str, call: Callable[[], object]) -> None:
        found.setdefault(what, []).append(seconds(call))

    with TemporaryDirectory(prefix="compress-") as scratch:
        folder = Path(scratch)
        registry, cache, out = folder / "registry", folder / "cache", folder / "out"
        release(folder / "run", "big", MODEL_BYTES)
        publish(folder / "run", registry, "1.0.0")
        fill(registry, folder / "made")
        server = subprocess.Popen(
            [sys.executable, "-u", "-c", SERVE],
            cwd=registry,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split("(")[1].split("/)")[0]
            names = ("manifest.json", "model.tflite", "labels.txt", "golden.npz")
            files = [word for name in names for word in ("-O", f"{url}/big/1.0.0/{name}")]
            (folder / "curl").mkdir()
            fetch = [*COMPRESS, "fetch", "big@1.0.0", "--from", url, "--format", "tflite", "--out", out]
            for _ in range(repeats):
                for gone in (cache, out):
                    shutil.rmtree(gone, ignore_errors=True)
                curl = ["curl", "-s", "--output-dir", folder / "curl", *files]
                timed("curl, the same files", lambda: run(*curl, cache=cache))
                timed("compress --version: start-up", lambda: run(*COMPRESS, "--version", cache=cache))
                timed("compress fetch", lambda: run(*fetch, cache=cache))
                timed("compress fetch, a second time", lambda: run(*fetch, cache=cache))
                for what, source in (("a folder", registry), ("http", url)):
                    shutil.rmtree(out)
                    timed(f"compress list, {what}", lambda: run(*COMPRESS, "list", "--from", source, cache=cache))
                    one = [*COMPRESS, "fetch", "model-7@^1.2", "--from", source, "--out", out]
                    timed(f"compress fetch NAME@^1.2, {what}", lambda: run(*one, cache=cache))
        finally:
            server.terminate()
            server.wait()
    return {what: statistics.median(times) for what, times in found.items()}


def main() -> None:
    numbers = [word for word in sys.argv[1:] if word.isdigit()]
    repeats = int(numbers[0]) if numbers else 11
    found = measured(repeats)
    for what, median in found.items():
        print(f"{what:36} {median:.3f} s")
    if "--write" in sys.argv:
        write(found, repeats)


def write(found: dict[str, float], repeats: int) -> None:
    from compress.machine import cores, processor

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout
    result = {
        "title": "Fetching a release",
        "about": f"Medians of {repeats} runs in turns, seconds, start of the process included: a TFLite file of 4 MB with "
        "labels, golden input and manifest from a web server on the same machine, into an empty folder with an empty "
        "cache; then `list` and `fetch` of a registry with 200 versions of each of 20 names.",
        "columns": [{"name": "what"}, {"name": "seconds", "digits": 3}],
        "runs": [
            {
                "command": f"python benchmarks/fetch.py {repeats} --write",
                "commit": commit.strip(),
                "date": date.today().isoformat(),
                "machine": {"processor": processor(), "cores": cores(), "instructions": "which do not matter here"},
                "old": None,
                "note": None,
                "rows": [[what, round(median, 4)] for what, median in found.items()],
            }
        ],
    }
    RESULT.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
