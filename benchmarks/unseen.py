"""How files do on photographs of which nothing was learned, side by side.

    python benchmarks/unseen.py --set "SOD=DIR" [--set "ECSSD=DIR"] --out RESULT.json TEACHER.onnx FILE ...

Each DIR holds images/ and masks/, or val/ with both. Mean IoU of each file with its interval, and how far it is from
the first file's, paired by image. A file that reads float32 needs --mean and --std, as `compress bench` does. For a
recipe of ours, train it on a folder in which nothing of the set lies, and name the set here: that is the honest place
of a figure that was reached with neighbours of the test images in sight.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from compress.flags import numbers
from compress.judge.bench import Options, bench
from compress.machine import prepare_process

SECONDS = 0.2
"""Of timing, which is not what is asked here."""


def rows(name: str, folder: Path, first: Path, files: list[Path], mean: Any, std: Any) -> list[list[Any]]:
    record = bench(files, Options(against=first, data=folder, seconds=SECONDS, mean=mean, std=std))
    found = []
    for file, each in record.files.items():
        iou, lost = each.measurement.iou, each.measurement.iou_drop
        assert iou
        apart = None if lost is None else {"mean": -lost.mean, "low": -lost.high, "high": -lost.low}
        of = {"mean": iou.mean, "low": iou.low, "high": iou.high}
        found.append([name, file, each.measurement.size_bytes, of, apart])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--set", action="append", required=True, metavar="NAME=DIR", help="repeatable")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mean", type=numbers, metavar="R,G,B")
    parser.add_argument("--std", type=numbers, metavar="R,G,B")
    parser.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    prepare_process()
    sets = [each.partition("=")[::2] for each in options.set]
    first, others, how = options.files[0], options.files[1:], (options.mean, options.std)
    found = [row for name, folder in sets for row in rows(name, Path(folder), first, others, *how)]
    for name, file, size, iou, apart in found:
        beside = "" if apart is None else f", {apart['mean']:+.3f} [{apart['low']:+.3f}, {apart['high']:+.3f}]"
        print(f"{name}: {file}, {size:,} bytes: {iou['mean']:.3f} [{iou['low']:.3f}, {iou['high']:.3f}]{beside}")
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
