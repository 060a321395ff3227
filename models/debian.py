"""Sets of labelled images that are built from what Debian's packages carry: fetched, unpacked, written whole or not at
all, with their sources beside them. No root is needed."""

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from script import ended
from tqdm import tqdm

from compress.errors import DataError


@dataclass(frozen=True)
class ImageSet:
    """One such set.

    script     the file in models/ that builds it, and `folder`, where it does so unless told otherwise
    title      first words of its README.txt, with `version`, which is raised whenever the same seed gives other bytes
    content    what its README.txt says of it
    megabytes  to download, by package
    counts     labelled images, by part: a folder with images/ and masks/
    fill       (folder with a folder for each package, empty folder, seed) -> writes the parts into the empty folder and
               returns how many images each has; raises DataError where the packages hold too little
    otherwise  what to try where the packages cannot be had
    """

    script: str
    folder: Path
    title: str
    version: int
    content: str
    megabytes: dict[str, int]
    counts: dict[str, int]
    fill: Callable[[Path, Path, int], dict[str, int]]
    otherwise: str

    def stamp(self, seed: int) -> str:
        return f"{self.title}, version {self.version}, seed {seed}"


def fetch(images: ImageSet, work: Path) -> None:
    """Downloads the packages into `work` and unpacks each into work/<package>; what is there is kept.

    Raises DataError when apt-get or dpkg-deb is missing or fails.
    """
    with tqdm(total=sum(images.megabytes.values()), desc="fetching", unit="MB") as bar:
        for package, megabytes in images.megabytes.items():
            bar.set_postfix_str(package)
            if not (work / package).is_dir():
                if not (found := sorted(work.glob(f"{package}_*.deb"))):
                    _run(["apt-get", "download", package], work, images.otherwise)
                    found = sorted(work.glob(f"{package}_*.deb"))
                partial = work / f"{package}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                _run(["dpkg-deb", "-x", found[-1].name, partial.name], work, images.otherwise)
                os.replace(partial, work / package)
            bar.update(megabytes)


def _run(command: list[str], work: Path, otherwise: str) -> None:
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, text=True)
    except FileNotFoundError:
        raise DataError(f"{command[0]} is not on this system; {otherwise}") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg-deb: error"))]
        reason = errors[-1] if errors else f"exit code {done.returncode}"
        hint = "run: sudo apt-get update, then again" if command[0] == "apt-get" else "delete the .deb and run again"
        raise DataError(f"{' '.join(command[:2])} {command[-1]} failed ({reason}); {hint}, or {otherwise}")


def write_sources(images: ImageSet, work: Path, out: Path, seed: int) -> None:
    """README.txt with the stamp, packages and licences, and the packages' own copyright files beside it."""
    (out / "licences").mkdir()
    lines = [images.stamp(seed), ""]
    lines += [f"Built by models/{images.script} from these Debian packages. Their licences allow use; before passing"]
    lines += [f"the pictures on, read licences/. {images.content}", ""]
    for package in images.megabytes:
        text = (work / package / "usr/share/doc" / package / "copyright").read_text(errors="replace")
        (out / "licences" / f"{package}.txt").write_text(text)
        names = sorted(set(re.findall(r"^License: *(\S.*)$", text, re.MULTILINE)), key=str.lower)
        lines.append(f"{package}: {', '.join(names) or 'see licences/'}")
    (out / "README.txt").write_text("\n".join(lines) + "\n")


def _first_line(out: Path) -> str:
    readme = out / "README.txt"
    return readme.read_text().partition("\n")[0] if readme.is_file() else ""


def is_complete(images: ImageSet, out: Path, seed: int) -> bool:
    """Whether `out` was built by this version from this seed and has all its labelled images."""
    return _first_line(out) == images.stamp(seed) and all(
        len(list((out / part / "masks").glob("*.png"))) == count for part, count in images.counts.items()
    )


def build(images: ImageSet, work: Path, out: Path, seed: int) -> dict[str, int]:
    """Builds the set into `out` from packages unpacked in `work`; returns how many images each part has.

    Raises DataError when the packages hold too little. An older `out` is replaced.
    """
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        counts = images.fill(work, partial, seed)
        write_sources(images, work, partial, seed)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return counts


def command(images: ImageSet, description: str, argv: list[str] | None = None) -> int:
    """The command line of a script that builds one set; returns the exit code."""
    name, total = images.script.removesuffix(".py"), sum(images.megabytes.values())
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=images.folder, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--work", type=Path, help=f"keep the downloads here, {total} MB (default: a temporary folder)")
    args = parser.parse_args(argv)
    if is_complete(images, args.out, args.seed):
        print(f"{args.out} is complete")
        return 0
    return ended(name, lambda: _written(images, args.out, args.seed, args.work), args.out)


def _written(images: ImageSet, out: Path, seed: int, work: Path | None) -> str:
    """Fetches the packages into `work`, by default a temporary folder, and builds the set; what to say of it."""
    if out.exists() and not _first_line(out).startswith(images.title):
        raise DataError(f"{out} exists and was not built by this script; move it away or give another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="compress-images-") as temporary:
        work = (work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        fetch(images, work)
        counts = build(images, work, out, seed)
    return f"{out}: " + ", ".join(f"{count} {part}" for part, count in counts.items())
