"""The options of every command, as a reader meets them: examples, groups, errors of one line."""

import argparse
import difflib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

EXAMPLES = {
    "run": (
        "compress run models/u2net.pt --budget 4MB --data data/demo",
        "compress run models/u2net.pt --budget 4MB --budget 20ms --data data/demo --minutes 60 --out export/mine",
        "compress run --resume export/mine --minutes 120",
    ),
    "sweep": (
        "compress sweep models/u2net.pt --budget 1MB,2MB,4MB --data data/demo --out export/sweep",
        "compress sweep mine.onnx --budget 2MB,4MB --budget 'iou>=0.85' --input-size 256,320 --seeds 3 --out sweep",
        "compress sweep mine.onnx --budget 2MB --macs-share 0.05:0.4 --trials 40 --executor ray --out sweep",
    ),
    "init": ("compress init models/u2net.onnx --data data/demo", "compress init mine.pt --arch mine.py:Segmenter"),
    "inspect": ("compress inspect models/u2net.pt",),
    "verify": ("compress verify export/mine", "compress verify export/mine --images data/demo/val/images"),
    "bench": (
        "compress bench export/mine/model.tflite",
        "compress bench a.tflite b.onnx --against b.onnx --data data/demo",
    ),
    "gate": (
        "compress gate export/mine --budget 4MB --budget 20ms",
        "compress gate export/mine --budget 'iou>=0.86' --data data/demo --json - --junit gate.xml",
    ),
    "report": ("compress report export/mine", "compress report export/mine export/other --out comparison.html"),
    "publish": (
        "compress publish export/mine --to registry --channel stable",
        "compress publish export/mine --to s3://bucket/models --version 1.2.0",
    ),
    "fetch": (
        "compress fetch mine@^1.2 --from https://models.example.com --format tflite --out app/assets/mine",
        "compress fetch mine@stable --from registry",
    ),
    "list": ("compress list --from registry", "compress list mine --from registry"),
    "diff": ("compress diff export/mine export/other", "compress diff mine@1.0.0 mine@1.1.0 --from registry"),
    "channel": ("compress channel mine stable 1.0.0 --to registry --reason 'thin objects are lost'",),
    "mine": (
        "compress mine --teacher models/u2net.pt --student export/mine/model.tflite --unlabelled photos --out mined",
    ),
}
GROUPS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "run": {
        "the goal": ("--budget", "--minutes", "--formats", "--out", "--dry-run", "--json"),
        "images": ("--data", "--unlabelled", "--pictures"),
        "going on": ("--resume", "--trust-code"),
        "how": (
            *("--teacher", "--tta", "--plan", "--input-size", "--macs-share", "--controls", "--quantize"),
            *("--keep-float", "--sensitivity", "--seed", "--recipe", "--trust-pickle"),
        ),
    },
    "sweep": {
        "what to try": ("--budget", "--input-size", "--macs-share", "--seeds", "--trials", "--out"),
        "where": ("--executor", "--ray-address", "--jobs", "--cpus", "--gpus", "--storage"),
        "of every run": (
            *("--minutes", "--formats", "--data", "--unlabelled", "--pictures", "--teacher", "--student"),
            *("--student-weights", "--tta", "--plan", "--controls", "--quantize", "--keep-float", "--sensitivity"),
            *("--recipe", "--trust-pickle"),
        ),
    },
    "bench": {
        "what it is measured on": ("--data", "--recipe", "--mean", "--std"),
        "how": ("--threads", "--seconds", "--folds", "--against"),
    },
    "gate": {"results for CI": ("--json", "--junit", "--markdown", "--base")},
}
"""Options of a command that belong together; all others stand under "options"."""

_LEVELS = (
    (("-q", "--quiet"), logging.WARNING, "say warnings and errors alone"),
    (("-v", "--verbose"), logging.DEBUG, "say all, also what libraries say"),
)


class Parser(argparse.ArgumentParser):
    """argparse, but for its errors: one line, which says what was meant."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"compress: {message}; see {self.prog} --help\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            used: Parser = found.parser
            used.error(f"{used.prog} does not take {rest[0]}{meant(rest[0].partition('=')[0], used.flags())}")
        del found.parser
        return found

    def flags(self) -> list[str]:
        return [flag for action in self._actions for flag in action.option_strings]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = "command" if isinstance(action, argparse._SubParsersAction) else "/".join(action.option_strings)
            known = ", ".join(map(str, action.choices))
            raise argparse.ArgumentError(
                None, f"there is no {what} {value!r}{meant(str(value), action.choices) or f'; there are {known}'}"
            )


def meant(word: str, known: Iterable[str]) -> str:
    """ "; did you mean ...?" where one of the `known` words is near, else nothing."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


def finish(commands: Mapping[str, argparse.ArgumentParser]) -> None:
    """Give each command by its name its examples, its groups, and the options that all of them have."""
    for name, parser in commands.items():
        parser.set_defaults(parser=parser)
        talk = parser.add_mutually_exclusive_group()
        for names, level, what in _LEVELS:
            talk.add_argument(*names, dest="level", action="store_const", const=level, default=None, help=what)
        parser.epilog = "\n".join(["examples:", *(f"  {example}" for example in EXAMPLES[name])])
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        for title, flags in GROUPS.get(name, {}).items():
            _regroup(parser, title, flags)


def _regroup(parser: argparse.ArgumentParser, title: str, flags: Sequence[str]) -> None:
    group, plain = parser.add_argument_group(title), parser._optionals
    for flag in flags:
        action = parser._option_string_actions[flag]
        plain._group_actions.remove(action)
        group._group_actions.append(action)
