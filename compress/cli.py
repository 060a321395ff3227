"""The command: parse, call, print, exit code. Heavy imports stand where they are used."""

import argparse
import logging
import shlex
import sys
from pathlib import Path

from compress.errors import CompressError


def main(argv: list[str] | None = None) -> int:
    """0: within budget, or one network. 1: over budget, or files that differ. 2: could not run. 130: Ctrl-C."""
    arguments = sys.argv[1:] if argv is None else argv
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("compress").setLevel(logging.INFO)
    try:
        return options.call(options, "compress " + shlex.join(arguments))
    except CompressError as error:
        print(f"compress: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "compress: stopped; finished stages are kept in the cache and in the output's checkpoints", file=sys.stderr
        )
        return 130


def _run(options: argparse.Namespace, command: str) -> int:
    from compress.budget import Budget
    from compress.pipeline import run
    from compress.recipe import read_recipe
    from compress.report.summary import table

    recipe = read_recipe(options.recipe or options.model.with_suffix(".toml")).with_flags(
        budget=options.budget,
        data=options.data,
        unlabelled=options.unlabelled,
        pictures=options.pictures,
        minutes=options.minutes,
        seed=options.seed,
        quantize=options.quantize,
        formats=options.formats.split(",") if options.formats else None,
    )
    Budget.parse(recipe.budget)
    out = options.out or Path("export") / recipe.name
    record = run(recipe, options.model, out, command=command, trust_pickle=options.trust_pickle)
    print(table(record, out / "report.html"))
    return 0 if record.verdict.passed else 1


def _inspect(options: argparse.Namespace, command: str) -> int:
    from compress.inspect import describe_model
    from compress.load.model import load
    from compress.recipe import read_recipe

    recipe = read_recipe(options.recipe or options.model.with_suffix(".toml"))
    print(describe_model(load(options.model, recipe, options.trust_pickle)))
    return 0


def _verify(options: argparse.Namespace, command: str) -> int:
    from compress.verify import describe_parity, images_of, verify_folder

    changed, parity = verify_folder(options.folder, images_of(options.folder, options.images))
    print("\n".join(changed) if parity is None else describe_parity(parity))
    return 0 if parity is not None and parity.passed else 1


def _report(options: argparse.Namespace, command: str) -> int:
    from compress.report.write import rebuild, write_comparison

    if len(options.folders) == 1:
        print(f"report: {rebuild(options.folders[0], options.out)}")
        return 0
    page = options.out or Path("comparison.html")
    for sentence in write_comparison(options.folders, page):
        print(sentence)
    print(f"report: {page}")
    return 0


def _parser() -> argparse.ArgumentParser:
    from importlib.metadata import version

    parser = argparse.ArgumentParser(
        prog="compress", description="Turn a trained image segmenter into an int8 model that a phone can run."
    )
    parser.add_argument("--version", action="version", version=f"compress {version('compress-mobile')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("model", type=Path, metavar="MODEL", help="file that torch.save(model.state_dict()) wrote")
    common.add_argument("--recipe", type=Path, help="TOML recipe (default: beside the model)")
    common.add_argument("--trust-pickle", action="store_true", help="also load a whole pickled module, which is code")

    inspect = commands.add_parser("inspect", parents=[common], help="say what a model is and what can be pruned")
    inspect.set_defaults(call=_inspect)

    verify = commands.add_parser("verify", help="show that the files of a run are one and the same int8 network")
    verify.set_defaults(call=_verify)
    verify.add_argument("folder", type=Path, metavar="DIR", help="output folder of compress run")
    verify.add_argument("--images", type=Path, metavar="DIR", help="compare on 50 of these (default: golden.npz)")

    report = commands.add_parser("report", help="write the report of a run anew, or compare several runs on one page")
    report.set_defaults(call=_report)
    report.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="output folders; the first is the base")
    report.add_argument(
        "--out", type=Path, metavar="FILE", help="default: DIR/report.html; of several: comparison.html"
    )

    run = commands.add_parser("run", parents=[common], help="compress a model to a budget, export and measure it")
    run.set_defaults(call=_run)
    run.add_argument("--budget", action="append", metavar="SIZE", help="of each exported file: 4MB, 4MiB (repeatable)")
    run.add_argument("--data", type=Path, metavar="DIR", help="folder with train/ and val/, each images/ and masks/")
    run.add_argument("--unlabelled", type=Path, metavar="DIR", help="folder of more images, without masks")
    run.add_argument("--pictures", type=Path, metavar="DIR", help="photographs for the report, not validation images")
    run.add_argument("--out", type=Path, metavar="DIR", help="output folder (default: export/NAME)")
    run.add_argument("--minutes", type=float, metavar="N", help="training time (default: the recipe's)")
    run.add_argument("--seed", type=int, metavar="N", help="seed of every random choice (default: the recipe's)")
    run.add_argument("--quantize", metavar="HOW", help="qat trains with int8, ptq calibrates only (default: qat)")
    run.add_argument("--formats", metavar="LIST", help="of onnx, tflite, ort (default: the recipe's)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
