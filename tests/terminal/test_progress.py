"""Bars and lines, with a clock and streams of their own."""

import io
import logging
import sys

import pytest

from compress.terminal.progress import Lines, tqdm
from compress.terminal.quiet import GRACE, Above, is_first, quietly, silently


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def log():
    """The program's log, at "info" and on stderr alone."""
    log, handler = logging.getLogger("compress"), Above()
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield log
    log.removeHandler(handler)
    log.setLevel(before)


def test_without_a_terminal_a_stage_says_its_tenths_and_no_bar(log, capsys):
    now = iter(range(0, 10_000, 5))  # five seconds each time that somebody looks
    bar = Lines(
        range(100), desc="maps", unit="image", clock=lambda: next(now), mininterval=0, miniters=1, disable=False
    )
    for _ in bar:
        pass
    tenths = [f"maps: {percent} %" for percent in range(10, 100, 10)]
    said = capsys.readouterr().err.splitlines()
    assert set(said) <= set(tenths)
    assert len(said) >= 4
    assert said == sorted(said)


def test_lines_that_would_come_soon_after_another_are_left_out(log, capsys):
    for _ in Lines(range(100), desc="maps", clock=lambda: 0.0, mininterval=0, miniters=1, disable=False):
        pass
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar_with_log_lines_above_it(log, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with tqdm(total=4, desc="maps", mininterval=0, disable=False) as bar:
        bar.update()
        log.info("distil: IoU 0.5")
        bar.update()
    shown = [line.strip() for line in screen.getvalue().replace("\r", "\n").split("\n")]
    assert "distil: IoU 0.5" in shown  # on a line of its own
    assert any(line.startswith("maps:  25%") for line in shown)


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_quiet_log_has_neither_bars_nor_lines(log, stream, monkeypatch):
    screen = stream()
    monkeypatch.setattr(sys, "stderr", screen)
    log.setLevel(logging.WARNING)
    assert list(tqdm(range(3), desc="maps", mininterval=0)) == [0, 1, 2]
    assert screen.getvalue() == ""


def test_libraries_are_heard_only_where_all_is_to_be_told(log, capsys):
    other = logging.getLogger("a library")
    other.setLevel(logging.WARNING)
    other.addHandler(handler := logging.StreamHandler(sys.stderr))

    def talk():
        other.warning("forty-six lines")
        print("def forward(self)", file=sys.stderr)

    with quietly():
        talk()
    assert capsys.readouterr().err == ""
    other.warning("heard again")
    log.setLevel(logging.DEBUG)
    with quietly():
        talk()
    other.removeHandler(handler)
    assert capsys.readouterr().err.splitlines() == ["heard again", "forty-six lines", "def forward(self)"]


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"WORLD_SIZE": "1", "RANK": "0"}, True),
        ({"WORLD_SIZE": "2", "RANK": "0"}, True),
        ({"WORLD_SIZE": "2", "RANK": "1"}, False),
    ],
)
def test_the_first_of_several_processes_speaks(environment, first, monkeypatch):
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first() is first


def fails() -> int:
    print("compress: no such file", file=sys.stderr)
    return 2


def stops() -> int:
    print("compress: stopped", file=sys.stderr)
    return 130


def ends() -> int:
    print("verdict")
    raise SystemExit(0)


@pytest.mark.parametrize(
    ("command", "code", "waited", "said"),
    [(fails, 2, [GRACE], "compress: no such file\n"), (stops, 130, [], ""), (ends, 0, [], "")],
)
def test_another_process_says_only_what_it_fails_of_while_the_first_goes_on(command, code, waited, said, capsys):
    waits, before = [], []

    def sleep(seconds):
        waits.append(seconds)
        before.append(capsys.readouterr())

    assert silently(command, sleep) == code
    assert waits == waited
    assert all(each.out == each.err == "" for each in before)
    assert capsys.readouterr() == ("", said)
