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
        print("compress: stopped; what is finished is kept: go on with compress run --resume DIR", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace, command: str) -> int:
    from compress.budget import TEACHER, Budget
    from compress.errors import RecipeError
    from compress.pipeline import resume, run
    from compress.recipe import read_recipe
    from compress.report.summary import table

    if options.resume:
        record = resume(options.resume, trust_pickle=options.trust_pickle)
        print(table(record, options.resume / "report.html"))
        return 0 if record.verdict.passed else 1
    if options.model is None:
        raise RecipeError("no model: compress run MODEL --budget 4MB, or compress run --resume DIR")
    recipe = read_recipe(options.recipe or options.model.with_suffix(".toml")).with_flags(
        budget=options.budget,
        data=options.data,
        unlabelled=options.unlabelled,
        minutes=options.minutes,
        seed=options.seed,
        plan=options.plan,
        controls=options.controls or None,
        quantize=options.quantize,
        teachers=options.teacher,
        tta=options.tta.split(",") if options.tta else None,
        formats=options.formats.split(",") if options.formats else None,
    )
    Budget.parse(recipe.budget, [TEACHER])
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


def _parser() -> argparse.ArgumentParser:
    from importlib.metadata import version

    parser = argparse.ArgumentParser(
        prog="compress", description="Turn a trained image segmenter into an int8 model that a phone can run."
    )
    parser.add_argument("--version", action="version", version=f"compress {version('compress-mobile')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    file_help = "file that torch.save(model.state_dict()) wrote"
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--recipe", type=Path, help="TOML recipe (default: beside the model)")
    common.add_argument("--trust-pickle", action="store_true", help="also load a whole pickled module, which is code")

    inspect = commands.add_parser("inspect", parents=[common], help="say what a model is and what can be pruned")
    inspect.set_defaults(call=_inspect)
    inspect.add_argument("model", type=Path, metavar="MODEL", help=file_help)

    verify = commands.add_parser("verify", help="show that the files of a run are one and the same int8 network")
    verify.set_defaults(call=_verify)
    verify.add_argument("folder", type=Path, metavar="DIR", help="output folder of compress run")
    verify.add_argument("--images", type=Path, metavar="DIR", help="compare on 50 of these (default: golden.npz)")

    run = commands.add_parser("run", parents=[common], help="compress a model to a budget, export and measure it")
    run.set_defaults(call=_run)
    run.add_argument("model", type=Path, nargs="?", metavar="MODEL", help=file_help)
    run.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run in this output folder")
    run.add_argument(
        "--budget", action="append", metavar="LIMIT", help="of each exported file: 4MB, 20ms, iou>=0.86 (repeatable)"
    )
    run.add_argument("--data", type=Path, metavar="DIR", help="folder with train/ and val/, each images/ and masks/")
    run.add_argument("--unlabelled", type=Path, metavar="DIR", help="folder of more images, without masks")
    run.add_argument("--out", type=Path, metavar="DIR", help="output folder (default: export/NAME)")
    run.add_argument("--minutes", type=float, metavar="N", help="training time (default: the recipe's)")
    run.add_argument("--seed", type=int, metavar="N", help="seed of every random choice (default: the recipe's)")
    run.add_argument(
        "--teacher", type=Path, action="append", metavar="FILE", help="model that teaches (repeatable; default: MODEL)"
    )
    run.add_argument("--tta", metavar="LIST", help="of flip, scale: views that each teacher averages (default: none)")
    run.add_argument("--plan", metavar="HOW", help="damage; to compare: uniform, magnitude, random (default: damage)")
    run.add_argument("--controls", action="store_true", help="also train, to compare: random pruning, a small network")
    run.add_argument("--quantize", metavar="HOW", help="qat trains with int8, ptq calibrates only (default: qat)")
    run.add_argument("--formats", metavar="LIST", help="of onnx, tflite, ort (default: the recipe's)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
