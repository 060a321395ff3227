"""The command: parse, call, print, exit code. Heavy imports stand where they are used."""

import argparse
import io
import json
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from compress.errors import CompressError, RecipeError, SweepError, UnknownOperators, WriteError
from compress.flags import LIMITS, MODEL_FLAGS, RUN_FLAGS, SWEEP_GIVES, Flag, height_and_width, numbers
from compress.terminal.parser import Parser, finish

if TYPE_CHECKING:
    from compress.load.draft import Told
    from compress.load.model import Trained
    from compress.recipe import Recipe
    from compress.report.record import RunRecord
    from compress.sweep.executor import Executor
    from compress.sweep.sweep import Order

_NO_TORCH = "this command needs torch, which the light install leaves out: pip install 'compress-mobile[train]'"
_MODEL = "ONNX, TorchScript, torch.export, safetensors, or what torch.save(model.state_dict()) wrote"

_Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def main(argv: list[str] | None = None) -> int:
    """0: within budget, one network, a drop-in. 1: not, or undecided, or files that differ. 2: could not run. 130:
    Ctrl-C. Of several processes that torchrun started the first one speaks."""
    from compress.terminal.quiet import is_first, silently

    arguments = sys.argv[1:] if argv is None else argv
    return _main(arguments) if is_first() else silently(lambda: _main(arguments))


def _main(arguments: list[str]) -> int:
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # the shell asks what can follow
        import argcomplete

        argcomplete.autocomplete(parser)
    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the name of a file need not be Unicode
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters of a picture is said with its name
    try:
        _speak(options.level or logging.INFO)
        return options.call(options, f"{_called()} {shlex.join(map(_unplaced, arguments))}")
    except CompressError as error:
        print(f"compress: {error}{_flag_for(error, options)}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        print(f"compress: {_NO_TORCH}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(f"compress: stopped{stopped}", file=sys.stderr)
        return 130


def _speak(level: int) -> None:
    """Let the log of this command be read on stderr; other packages' only where all is to be told."""

    from compress.terminal.quiet import Above, is_first

    logging.basicConfig(format="%(message)s", handlers=[Above()])
    logging.getLogger("compress").setLevel(level if is_first() else logging.ERROR)
    if level > logging.DEBUG:
        logging.getLogger().setLevel(logging.ERROR)
        warnings.simplefilter("ignore")


def _flag_for(error: CompressError, options: argparse.Namespace) -> str:
    """What names another folder, where this command has such a flag."""
    follows = hasattr(options, "out") and not getattr(options, "resume", None)
    return " with --out" if follows and isinstance(error, WriteError) else ""


def _called() -> str:
    """How this program was started."""
    from compress.machine import are_several

    each = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return f"torchrun --nproc-per-node {each} -m compress" if are_several() else "compress"


def _unplaced(argument: str) -> str:
    """An argument as a report may show it: of an absolute path, which tells of the machine, the name."""
    flag, sign, value = argument.rpartition("=")
    return f"{flag}{sign}{Path(value).name}" if os.path.isabs(value) else argument


def _run(options: argparse.Namespace, command: str) -> int:
    from compress.machine import computing

    with computing():  # importing torch is work too
        return _run_here(options, command)


def _run_here(options: argparse.Namespace, command: str) -> int:
    from compress.pipeline.run import resume, run

    if options.resume:
        given = {key for key, value in vars(options).items() if value is not None}
        others = given - {"call", "level", "resume", "minutes", "trust_pickle", "trust_code", "json"}
        if others:
            named = ", ".join(sorted("MODEL" if key == "model" else "--" + key.replace("_", "-") for key in others))
            raise RecipeError(f"--resume goes on with the recipe that the run has: leave out {named}, or start it anew")
        trust = {"trust_pickle": options.trust_pickle, "trust_code": bool(options.trust_code)}
        with _goes_on(options.resume):
            record = resume(options.resume, minutes=options.minutes, **trust)
        return _finished(record, options.resume, options.json)
    if options.model is None:
        raise RecipeError("no model: compress run MODEL --budget 4MB, or compress run --resume DIR")
    if options.trust_code:
        raise RecipeError("--trust-code goes with --resume: a run that you start runs the code of your own recipe")
    recipe = _recipe(options, {flag.key: getattr(options, flag.key) for flag in RUN_FLAGS if flag.setting})
    out = options.out or Path("export") / recipe.name
    if options.dry_run:
        from compress.pipeline.dry import dry_run

        print(dry_run(recipe, options.model, out, options.trust_pickle))
        return 0
    with _goes_on(out):
        record = run(recipe, options.model, out, command=command, trust_pickle=options.trust_pickle)
    return _finished(record, out, options.json)


def _recipe(options: argparse.Namespace, flags: Mapping[str, Any]) -> "Recipe":
    """That beside the model, or the one that is named, with what the flags say; or what can be found out of a model
    that has none."""
    from compress.recipe import beside, read_recipe

    if not _has_recipe(options):
        from compress.load.draft import draft, draft_of_teacher

        make = draft_of_teacher if flags.get("student") else draft
        return make(options.model, _told(options), options.trust_pickle).with_flags(**flags)
    recipe = read_recipe(options.recipe or beside(options.model))
    folder, told = _said_of_model(options)
    if folder is not None:
        recipe = recipe.model_copy(update={"folder": folder})
    return recipe.with_flags(**told, **flags)


def _has_recipe(options: argparse.Namespace) -> bool:
    """Whether one is named or lies beside the model, which may be a folder of maps. Raises ModelError where there is no
    model."""
    from compress.recipe import beside, check_model

    if not options.model.is_dir():
        check_model(options.model)
    return options.recipe is not None or beside(options.model).is_file()


def _told(options: argparse.Namespace) -> "Told":
    from compress.load.draft import Told

    folder, told = _said_of_model(options)
    return Told(data=options.data, folder=folder or Path(), **told)


def _said_of_model(options: argparse.Namespace) -> tuple[Path | None, dict[str, Any]]:
    """The flags that say what it is, by key, and the folder of its code where that is a file."""
    told = {flag.key: getattr(options, flag.key) for flag in MODEL_FLAGS}
    place, is_file, name = (options.arch or "").partition(".py:")
    if not is_file:
        return None, told
    return Path(place).parent, {**told, "arch": f"{Path(place).name}.py:{name}"}


@contextmanager
def _goes_on(out: Path) -> Iterator[None]:
    """Ctrl-C inside says how the run that has checkpoints in `out` goes on."""
    try:
        yield
    except KeyboardInterrupt:
        if not (out / "checkpoints" / "run.json").is_file():
            raise
        kept = f"; what is finished is kept: go on with compress run --resume {shlex.quote(str(out))}"
        raise KeyboardInterrupt(kept) from None


def _finished(record: "RunRecord", out: Path, as_json: bool) -> int:
    from compress.report.ending import ending

    print(ending(record, out), file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps(record.to_json(), indent=2, ensure_ascii=False))
    return 0 if record.verdict.passed else 1


def _sweep(options: argparse.Namespace, command: str) -> int:
    order = _order(options)
    executor = _executor(options, order)
    from compress.sweep.page import summary
    from compress.sweep.sweep import sweep

    try:
        trials = sweep(order, executor)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("; what is finished is kept: the same command goes on") from None
    print(summary(trials, options.out))
    return 0 if any(trial.passed for trial in trials) else 1


def _order(options: argparse.Namespace) -> "Order":
    """Raises a CompressError."""
    from compress.machine import are_several, cores
    from compress.recipe import beside, check_model
    from compress.sweep.space import budgets, space
    from compress.sweep.sweep import Order

    _check_installed("optuna", "sweep", "compress sweep")
    if are_several():
        raise SweepError("compress sweep starts its runs itself: leave torchrun out; --jobs N makes N at once")
    budget, limits = budgets(options.budget or [])
    found = space(budget, options.input_size, options.macs_share, options.seeds, options.trials)
    if not options.model.is_dir():
        check_model(options.model)
    recipe = options.recipe or beside(options.model)
    trusted = ("--trust-pickle",) if options.trust_pickle else ()
    given = (str(options.model.absolute()), *_given(options))
    jobs, cpus = options.jobs or 1, options.cpus or 0
    cpus = cpus or (1 if options.executor == "ray" else max(1, cores() // jobs))
    out = options.out.absolute()
    return Order(options.model, recipe, found, limits, given, trusted, out, options.storage, cpus, options.gpus)


def _given(options: argparse.Namespace) -> list[str]:
    """What a sweep gives every run, as it was given itself: paths from the root, since a run may begin elsewhere."""
    words = ["--recipe", str(options.recipe.absolute())] if options.recipe else []
    for flag in (*MODEL_FLAGS, *SWEEP_GIVES):
        value = getattr(options, flag.key)
        for one in (value or []) if flag.repeatable else [value]:
            if one is not None:
                words += [flag.name, flag.written(one)] if flag.metavar else [flag.name]
    return words


def _check_installed(package: str, extra: str, what: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise SweepError(f"{what} needs {package}: pip install 'compress-mobile[{extra}]'")


def _executor(options: argparse.Namespace, order: "Order") -> "Executor":
    """Raises SweepError."""
    if options.executor == "local":
        if options.ray_address:
            raise SweepError("--ray-address goes with --executor ray")
        from compress.sweep.local import LocalExecutor

        return LocalExecutor(options.jobs or 1)
    _check_installed("ray", "ray", "--executor ray")
    from compress.sweep.ray import RayExecutor

    return RayExecutor(options.ray_address, order.out, options.jobs, order.cpus, order.gpus)


def _inspect(options: argparse.Namespace, command: str) -> int:
    from compress.prune.inspect import describe_model, describe_unknown

    try:
        print(describe_model(_inspected(options)))
    except UnknownOperators as refused:
        print(describe_unknown(refused, options.model))
        raise
    return 0


def _inspected(options: argparse.Namespace) -> "Trained":
    """By the recipe, or without one, when it matters only if there are images how pixels are read."""
    from compress.load.draft import drafted
    from compress.load.model import load

    if _has_recipe(options):
        return load(options.model, _recipe(options, {"data": options.data}), options.trust_pickle)
    found = drafted(options.model, _told(options), options.trust_pickle, pixels=options.data is not None)
    return found.trained or load(options.model, found.recipe, options.trust_pickle)


def _init(options: argparse.Namespace, command: str) -> int:
    from compress.pipeline.first_recipe import write_first_recipe

    for line in write_first_recipe(options.model, _told(options), options.out, options.trust_pickle):
        print(line)
    return 0


def _verify(options: argparse.Namespace, command: str) -> int:
    from compress.judge.verify import describe_parity, images_of, verify_folder

    changed, parity = verify_folder(options.folder, images_of(options.folder, options.images))
    print("\n".join(changed) if parity is None else describe_parity(parity))
    return 0 if parity is not None and parity.passed else 1


def _bench(options: argparse.Namespace, command: str) -> int:
    from compress.judge.bench import Options, bench
    from compress.judge.bench_text import describe_bench
    from compress.machine import THREADS
    from compress.recipe import read_recipe

    record = bench(
        options.files,
        Options(
            against=options.against,
            data=options.data,
            recipe=read_recipe(options.recipe) if options.recipe else None,
            threads=THREADS if options.threads is None else options.threads,
            seconds=options.seconds,
            folds=options.folds,
            mean=options.mean,
            std=options.std,
            size=options.size,
        ),
    )
    print(json.dumps(record.to_json(), indent=2) if options.json else describe_bench(record))
    return 0


def _gate(options: argparse.Namespace, command: str) -> int:
    from compress.judge.gate import Rules, gate, read_rules
    from compress.judge.gate_text import NotJudged, annotations, gate_json, gate_table, junit, markdown

    try:
        rules = read_rules(options.target)
        if options.budget:
            rules = replace(rules or Rules(), limits=tuple(options.budget), folder=Path())
        result = gate(
            options.target,
            rules or Rules(),
            data=options.data,
            seconds=options.seconds,
            lenient=options.lenient,
            base=options.base,
        )
    except CompressError as error:
        none = NotJudged(str(options.target), str(error))
        with suppress(WriteError):
            _write_gate(options, "", none.annotations(), none.json(), none.junit(), none.markdown())
        raise
    _write_gate(options, gate_table(result), annotations(result), gate_json(result), junit(result), markdown(result))
    return 0 if result.verdict.passed else 1


def _write_gate(
    options: argparse.Namespace, table: str, annotations: str, document: dict[str, Any], junit: str, markdown: str
) -> None:
    """For people, for GitHub's log, and into the files that the options name. Raises WriteError."""
    texts = {
        "--json": (options.json, json.dumps(document, indent=2, ensure_ascii=False) + "\n"),
        "--junit": (options.junit, junit),
        "--markdown": (options.markdown, markdown),
    }
    to_stdout = [text for path, text in texts.values() if path == "-"]
    people = sys.stderr if to_stdout else sys.stdout
    shown = [table, annotations if os.environ.get("GITHUB_ACTIONS") == "true" else ""]
    print("".join(f"{text}\n" for text in shown if text), file=people, end="")
    print(*to_stdout, end="")
    _write_each({flag: (Path(path), text) for flag, (path, text) in texts.items() if path not in (None, "-")})


def _write_each(texts: Mapping[str, tuple[Path, str]]) -> None:
    """Files by the flag that names each. Raises WriteError for the first that cannot be written, after the others."""
    from compress.files import write_whole

    failed = []
    for flag, (path, text) in texts.items():
        try:
            write_whole(path, text.encode(errors="backslashreplace"))
        except WriteError as error:
            failed.append(WriteError(f"{error} with {flag}"))
    if failed:
        raise failed[0]


def _seconds(text: str) -> float:
    if not 0 < float(text) <= 86_400:  # a day
        raise ValueError
    return float(text)


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


def _mine(options: argparse.Namespace, command: str) -> int:
    from compress.files import check_writable
    from compress.mine.mining import mine
    from compress.mine.sheet import describe_mined, write_sheet

    check_writable(options.out)
    found = mine(options.teacher, options.student, options.unlabelled, options.top, trust_pickle=options.trust_pickle)
    write_sheet(found, options.out)
    print(describe_mined(found, options.out))
    return 0


def _publish(options: argparse.Namespace, command: str) -> int:
    from compress.registry.open import open_to_write
    from compress.registry.publish import publish

    place = open_to_write(options.to)
    done = publish(
        options.folder,
        place,
        version=options.version,
        channel=options.channel,
        force=options.force,
        key=options.key,
    )
    there = "is published already" if done.already else f"published, {done.files} files, {done.size_bytes:,} bytes"
    print(f"{done.name} {done.version}: {there}{', signed' if options.key else ''}")
    print(f"sha256 of its manifest: {done.sha256}")
    return 0


def _fetch(options: argparse.Namespace, command: str) -> int:
    from compress.registry.fetch import fetch
    from compress.registry.names import Wanted
    from compress.registry.open import open_place

    wanted = Wanted.parse(options.wanted)
    done = fetch(
        wanted,
        open_place(options.source),
        options.out or Path(wanted.name),
        format=options.format,
        sha256=options.sha256,
        allow_older=options.allow_older,
        require_key=options.require_key,
    )
    moved = f"{done.moved_bytes:,} bytes fetched" if done.moved_bytes else "nothing had to be fetched"
    print(f"{done.name} {done.version}: {len(done.files)} files, {done.size_bytes:,} bytes in {done.folder}; {moved}")
    print(f"sha256 of its manifest: {done.sha256}")
    return 0


def _list(options: argparse.Namespace, command: str) -> int:
    from compress.registry.listing import describe_all, describe_one, read_all
    from compress.registry.open import open_place

    place = open_place(options.source)
    print(describe_one(place, options.name) if options.name else describe_all(read_all(place)))
    return 0


def _diff(options: argparse.Namespace, command: str) -> int:
    from compress.registry.diff import compare, describe_diff
    from compress.registry.release import named

    difference = compare(*(named(each, options.source) for each in (options.before, options.after)))
    print(describe_diff(difference))
    return 1 if difference.breaking else 0


def _channel(options: argparse.Namespace, command: str) -> int:
    from compress.registry.open import open_to_write
    from compress.registry.publish import move_channel

    before = move_channel(options.name, options.channel, options.version, open_to_write(options.to), options.reason)
    print(f"{options.name}: {options.channel} is {options.version} now" + (f", was {before}" if before else ""))
    return 0


def _parser() -> argparse.ArgumentParser:
    from importlib.metadata import version

    parser = Parser(
        prog="compress",
        description="Turn a trained image segmenter into an int8 model that a phone can run.",
        epilog="compress COMMAND --help has the options of each, and examples.",
    )
    parser.add_argument("--version", action="version", version=f"compress {version('compress-mobile')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands_of_files = (_add_verify, _add_bench, _add_gate, _add_report, _add_mine)
    commands_of_releases = (_add_publish, _add_fetch, _add_list, _add_diff, _add_channel)
    for add in (_add_init, _add_inspect, *commands_of_files, *commands_of_releases, _add_sweep, _add_run):
        add(commands)
    finish(commands.choices)
    return parser


def _reads_a_model() -> Parser:
    """The options of the commands that read a trained model by its recipe."""
    reads = Parser(add_help=False, parents=[_is_told_of_a_model()])
    reads.add_argument("--recipe", type=Path, help="TOML recipe (default: beside the model)")
    return reads


def _is_told_of_a_model() -> Parser:
    reads = Parser(add_help=False)
    reads.add_argument("--trust-pickle", action="store_true", help="also load a whole pickled module, which is code")
    group = reads.add_argument_group("what the model is, in place of a recipe or of what it says")
    for flag in MODEL_FLAGS:
        _add_flag(group, flag)
    return reads


def _add_flag(to: "argparse._ActionsContainer", flag: Flag) -> None:
    takes: dict[str, Any] = {"action": "store_true", "default": None}
    if flag.metavar:
        takes = {"type": flag.type, "metavar": flag.metavar, "action": "append" if flag.repeatable else "store"}
    to.add_argument(flag.name, help=flag.help, **takes)


def _add_init(commands: _Commands) -> None:
    init = commands.add_parser(
        "init", parents=[_is_told_of_a_model()], help="write a model's recipe: what was found, what was guessed"
    )
    init.set_defaults(call=_init)
    init.add_argument("--data", type=Path, metavar="DIR", help="labelled images; also to find out how pixels are read")
    init.add_argument("--out", type=Path, metavar="FILE", help="default: beside the model, as MODEL.toml")
    init.add_argument("model", type=Path, metavar="MODEL", help=_MODEL)


def _add_inspect(commands: _Commands) -> None:
    inspect = commands.add_parser(
        "inspect", parents=[_reads_a_model()], help="say what a model is and what can be pruned"
    )
    inspect.set_defaults(call=_inspect)
    inspect.add_argument("--data", type=Path, metavar="DIR", help="labelled images, to find out how pixels are read")
    inspect.add_argument("model", type=Path, metavar="MODEL", help=_MODEL)


def _add_verify(commands: _Commands) -> None:
    verify = commands.add_parser("verify", help="show that the files of a run are one and the same int8 network")
    verify.set_defaults(call=_verify)
    verify.add_argument("folder", type=Path, metavar="DIR", help="output folder of compress run")
    verify.add_argument("--images", type=Path, metavar="DIR", help="compare on 50 of these (default: golden.npz)")


def _add_bench(commands: _Commands) -> None:
    bench = commands.add_parser("bench", help="measure any TFLite, ONNX or ORT files, side by side")
    bench.set_defaults(call=_bench)
    bench.add_argument("files", type=Path, nargs="+", metavar="FILE", help=".tflite, .onnx or .ort")
    bench.add_argument(
        "--data", type=Path, metavar="DIR", help="measure accuracy on its val/, or its images/ and masks/"
    )
    bench.add_argument("--against", type=Path, metavar="FILE", help="state speed and accuracy relative to this file")
    bench.add_argument(
        "--threads", type=int, metavar="N", help="of the runtime (default: 2, where there are as many cores)"
    )
    bench.add_argument("--seconds", type=float, metavar="S", help="of counted inferences for each file (default: 5)")
    bench.add_argument(
        "--size", type=height_and_width, metavar="HxW", help="of the images, for files that read any: 320x320"
    )
    bench.add_argument("--folds", type=int, metavar="K", help="also IoU of each of K parts of the images")
    bench.add_argument("--recipe", type=Path, help="TOML recipe for classes, preprocessing and measure.margin")
    bench.add_argument("--mean", type=numbers, metavar="R,G,B", help="of a float32 input: (pixel / 255 - mean) / std")
    bench.add_argument("--std", type=numbers, metavar="R,G,B", help="of a float32 input")
    bench.add_argument("--json", action="store_true", help="print JSON, with every sample, in place of a table")


def _add_gate(commands: _Commands) -> None:
    gate = commands.add_parser("gate", help="say whether exported files keep to a budget, for CI")
    gate.set_defaults(call=_gate)
    gate.add_argument("target", type=Path, metavar="DIR|FILE", help="output folder of compress run, or a file")
    gate.add_argument("--budget", action="append", metavar="LIMIT", help=f"{LIMITS}; default: compress.toml's")
    gate.add_argument("--data", type=Path, metavar="DIR", help="folder with val/images and val/masks, for IoU")
    gate.add_argument("--seconds", type=_seconds, default=60.0, metavar="S", help="to measure undecided latencies (60)")
    gate.add_argument("--lenient", action="store_true", help="let pass what stays undecided")
    gate.add_argument("--json", metavar="FILE|-", help="write the result as JSON; - is standard output")
    gate.add_argument("--junit", metavar="FILE", help="write it as JUnit XML")
    gate.add_argument("--markdown", metavar="FILE", help="write it as a Markdown summary")
    gate.add_argument("--base", type=Path, metavar="FILE", help="report.json of the base branch, to state the change")


def _add_report(commands: _Commands) -> None:
    report = commands.add_parser("report", help="write the report of a run anew, or compare several runs on one page")
    report.set_defaults(call=_report)
    report.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="output folders; the first is the base")
    report.add_argument(
        "--out", type=Path, metavar="FILE", help="default: DIR/report.html; of several: comparison.html"
    )


def _add_mine(commands: _Commands) -> None:
    mine = commands.add_parser("mine", help="find the images that are most worth a human's labelling")
    mine.set_defaults(call=_mine)
    model = "a .pt with its recipe beside it, or an exported file"
    mine.add_argument(
        "--teacher", type=Path, action="append", required=True, metavar="FILE", help=f"{model}; repeatable"
    )
    mine.add_argument("--student", type=Path, required=True, metavar="FILE", help=model)
    mine.add_argument("--unlabelled", type=Path, required=True, metavar="DIR", help="folder of images to choose from")
    mine.add_argument("--top", type=int, default=100, metavar="N", help="how many images to choose (default: 100)")
    mine.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for mine.csv and mine.html")
    mine.add_argument("--trust-pickle", action="store_true", help="also load a whole pickled module, which is code")


_TO = "registry: a folder, or s3://, gs://, az:// or hf://"
_FROM = "registry: a folder, or http(s)://, s3://, gs://, az:// or hf://"


def _add_publish(commands: _Commands) -> None:
    publish = commands.add_parser("publish", help="put a run's folder into a registry, as a version that never changes")
    publish.set_defaults(call=_publish)
    publish.add_argument("folder", type=Path, metavar="DIR", help="output folder of compress run")
    publish.add_argument("--to", required=True, metavar="REGISTRY", help=_TO)
    publish.add_argument("--version", metavar="X.Y.Z", help="default: that of its manifest")
    publish.add_argument("--channel", metavar="NAME", help="let this channel, such as stable, lead there")
    publish.add_argument("--force", metavar="REASON", help="although the verdict failed; the reason is recorded")
    publish.add_argument("--key", type=Path, metavar="KEY.pem", help="sign it with this private key")


def _add_fetch(commands: _Commands) -> None:
    fetch = commands.add_parser("fetch", help="bring a published model into a folder, every byte checked")
    fetch.set_defaults(call=_fetch)
    fetch.add_argument(
        "wanted",
        metavar="NAME[@VERSION]",
        help="the newest version, @1.2.0, the newest of @^1.2, or a channel: @stable",
    )
    fetch.add_argument("--from", required=True, dest="source", metavar="REGISTRY", help=_FROM)
    fetch.add_argument("--format", metavar="FORMAT", help="the file of this format, and what belongs to it in an app")
    fetch.add_argument("--out", type=Path, metavar="DIR", help="a folder of its own (default: NAME)")
    fetch.add_argument("--sha256", metavar="SUM", help="what the manifest must have")
    fetch.add_argument("--allow-older", action="store_true", help="also a lower version than was fetched before")
    fetch.add_argument(
        "--require-key", type=Path, metavar="PUB.pem", help="refuse what the owner of this public key has not signed"
    )


def _add_list(commands: _Commands) -> None:
    listing = commands.add_parser("list", help="say what a registry holds")
    listing.set_defaults(call=_list)
    listing.add_argument("name", nargs="?", metavar="NAME", help="its versions and channels (default: all names)")
    listing.add_argument("--from", required=True, dest="source", metavar="REGISTRY", help=_FROM)


def _add_diff(commands: _Commands) -> None:
    diff = commands.add_parser("diff", help="say whether a release is a drop-in for another or breaks apps")
    diff.set_defaults(call=_diff)
    what = "output folder of compress run, or NAME@VERSION"
    diff.add_argument("before", metavar="A", help=what)
    diff.add_argument("after", metavar="B", help=what)
    diff.add_argument("--from", dest="source", metavar="REGISTRY", help=f"where names are; {_FROM}")


def _add_channel(commands: _Commands) -> None:
    channel = commands.add_parser("channel", help="let a channel lead to another published version, or back to one")
    channel.set_defaults(call=_channel)
    channel.add_argument("name", metavar="NAME")
    channel.add_argument("channel", metavar="CHANNEL", help="such as stable")
    channel.add_argument("version", metavar="X.Y.Z", help="a published version")
    channel.add_argument("--to", required=True, metavar="REGISTRY", help=_TO)
    channel.add_argument("--reason", required=True, metavar="TEXT", help="why; it is recorded")


def _add_run(commands: _Commands) -> None:
    run = commands.add_parser(
        "run", parents=[_reads_a_model()], help="compress a model to a budget, export and measure it"
    )
    run.set_defaults(call=_run)
    told = f"{_MODEL}; with --student also TFLite, ORT, or a folder of maps"
    run.add_argument("model", type=Path, nargs="?", metavar="MODEL", help=told)
    for flag in RUN_FLAGS:
        _add_flag(run, flag)


def _add_sweep(commands: _Commands) -> None:
    sweep = commands.add_parser(
        "sweep", parents=[_reads_a_model()], help="compress a model many ways, and compare them"
    )
    sweep.set_defaults(call=_sweep)
    told = f"{_MODEL}; with --student also TFLite, ORT, or a folder of maps"
    sweep.add_argument("model", type=Path, metavar="MODEL", help=told)
    sweep.add_argument(
        "--budget",
        action="append",
        metavar="LIST",
        help="sizes to try: 1MB,2MB,4MB; and limits of every trial: iou>=0.86, 20ms, ... (repeatable)",
    )
    sweep.add_argument("--input-size", metavar="LIST", help="of the images that the student reads: 256,320")
    sweep.add_argument("--macs-share", metavar="LIST|LOW:HIGH", help="of the model's operations: 0.1,0.2 or 0.05:0.4")
    sweep.add_argument("--seeds", type=int, metavar="N", help="try all with each seed from 0 to N - 1")
    sweep.add_argument("--trials", type=int, metavar="N", help="how many (default: all combinations of the lists)")
    sweep.add_argument("--out", type=Path, required=True, metavar="DIR", help="for trials/, sweep.json and sweep.html")
    sweep.add_argument(
        "--executor", choices=["local", "ray"], default="local", help="what runs trials (default: local)"
    )
    sweep.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="of a Ray cluster; auto: one that runs here (default: starts one)",
    )
    sweep.add_argument("--jobs", type=_count, metavar="N", help="trials at once (default: 1; of Ray: all that fit)")
    sweep.add_argument(
        "--cpus", type=_count, metavar="N", help="cores of a trial (default: all here over --jobs; Ray: 1)"
    )
    sweep.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs of a trial, on Ray (default: 0)")
    sweep.add_argument("--storage", metavar="URL", help="data base for Optuna (default: a journal in DIR)")
    for flag in SWEEP_GIVES:
        _add_flag(sweep, flag)


def _count(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
