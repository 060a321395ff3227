"""Options as a reader meets them."""

import os
import shlex
import subprocess
import sys

import pytest

from compress.cli import _parser, main
from compress.terminal.parser import EXAMPLES, GROUPS


def refused(arguments: list[str], capsys) -> str:
    """The one line of arguments that are no command."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["rnu", "a.pt"], "compress: there is no command 'rnu'; did you mean run?; see compress --help"),
        (
            ["run", "a.pt", "--minuts", "3"],
            "compress: compress run does not take --minuts; did you mean --minutes?; see compress run --help",
        ),
        (
            ["gate", "out", "--jsn=-"],
            "compress: compress gate does not take --jsn=-; did you mean --json?; see compress",
        ),
        (["verify", "out", "more"], "compress: compress verify does not take more; see compress verify --help"),
        (["bench"], "compress: the following arguments are required: FILE; see compress bench --help"),
        (
            ["bench", "a", "--seconds", "long"],
            "compress: argument --seconds: invalid float value: 'long'; see compress",
        ),
    ],
)
def test_a_mistake_is_one_line_that_says_what_was_meant(arguments, line, capsys):
    assert refused(arguments, capsys).startswith(line)


def test_a_command_like_no_other_is_answered_with_all(capsys):
    assert (
        "there are init, inspect, verify, bench, gate, report, mine, publish, fetch, list, diff, channel, sweep, run;"
        in refused(["zzz"], capsys)
    )


@pytest.mark.parametrize("command", EXAMPLES)
def test_every_command_shows_examples_that_it_takes_and_its_groups(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    for example in EXAMPLES[command]:
        assert example in text
        words = shlex.split(example)[1:]
        assert words[0] == command
        _parser().parse_args(words)
    for title, flags in GROUPS.get(command, {}).items():
        assert f"\n{title}:\n" in text
        assert all(f"\n  {flag}" in text for flag in flags)


@pytest.mark.parametrize("command", EXAMPLES)
def test_every_command_can_be_told_to_say_less_or_more(command):
    (example, *_) = EXAMPLES[command]
    levels = [_parser().parse_args([*shlex.split(example)[1:], *flag]).level for flag in ([], ["-q"], ["-v"])]
    assert levels == [None, 30, 10]


def test_the_shell_is_answered_with_commands_and_options(tmp_path):
    line = "compress run --quan"
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    asked |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "found")}
    subprocess.run([sys.executable, "-m", "compress"], env=os.environ | asked, check=True)
    assert (tmp_path / "found").read_text().strip() == "--quantize"
