"""One identity, one cache, one writer: with real processes where it is about processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compress.errors import DataError, ExportError
from compress.files import alone_in, cached, identity, locked, read_json, wait_for_others, write_whole


def python(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stderr=subprocess.PIPE, text=True)


def finished(*processes: subprocess.Popen) -> list[str]:
    """What they said on stderr; all must exit with 0."""
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


def waited_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


WRITES = """
import sys
from pathlib import Path
from compress.files import write_whole
for _ in range(300):
    write_whole(Path(sys.argv[1]), sys.argv[2].encode() * 1000)
"""


def test_two_processes_that_write_one_path_six_hundred_times_both_succeed(tmp_path):
    path = tmp_path / "result"
    finished(python(WRITES, path, "a"), python(WRITES, path, "b"))
    assert path.read_bytes() in (b"a" * 1000, b"b" * 1000)
    assert [each.name for each in tmp_path.iterdir()] == ["result"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"gone/file: cannot be written: No such file.*choose another folder"):
        write_whole(tmp_path / "gone" / "file", b"")


@pytest.mark.parametrize("place", [".", "/"])
def test_a_folder_is_no_file_to_write(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match=r"cannot be written: .*choose another folder"):
        write_whole(Path(place), b"")
    assert not list(tmp_path.iterdir())


def test_an_identity_changes_with_anything_that_goes_in():
    base = identity("maps", 1, size=(4, 8), mean=[0.5, 0.25])
    assert identity("maps", 1, mean=(0.5, 0.25), size=[4, 8]) == base
    others = [
        identity("masks", 1, size=(4, 8), mean=[0.5, 0.25]),
        identity("maps", 2, size=(4, 8), mean=[0.5, 0.25]),
        identity("maps", 1, size=(8, 4), mean=[0.5, 0.25]),
        identity("maps", 1, size=(4, 8), mean=[0.5, 0.2500000001]),
        identity("maps", 1, size="(4, 8)", mean=[0.5, 0.25]),
        identity("maps", 1, size=(4, 8)),
    ]
    assert len({base, *others}) == 7


@pytest.mark.parametrize("value", [Path("photos"), object(), {1, 2}, float("nan")])
def test_what_says_nothing_of_its_content_is_in_no_identity(value):
    with pytest.raises((TypeError, ValueError)):
        identity("maps", 1, of=value)


MAKES = """
import logging, sys, time
from pathlib import Path
from compress.files import cached
logging.basicConfig(format="%(message)s", level=logging.INFO)
folder, me = Path(sys.argv[1]), sys.argv[2]

def make(partial):
    (folder / f"{me} began").touch()
    while not (folder / "go on").exists():
        time.sleep(0.01)
    partial.write_text(me)

assert cached(folder / "result", make).read_text() == "first"
"""


def test_of_two_processes_that_ask_one_computes_and_the_other_says_that_it_waits(tmp_path):
    first = python(MAKES, tmp_path, "first")
    waited_for(tmp_path / "first began")
    second = python(MAKES, tmp_path, "second")
    assert second.stderr.readline() == f"result: process {first.pid} is making it; waiting\n"
    (tmp_path / "go on").touch()
    assert finished(first, second) == ["", ""]
    assert not (tmp_path / "second began").exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_process_that_was_killed_blocks_nobody(tmp_path, how):
    first = python(MAKES, tmp_path, "first")
    waited_for(tmp_path / "first began")
    first.send_signal(how)
    first.communicate()
    assert cached(tmp_path / "result", lambda partial: partial.write_text("ours")).read_text() == "ours"


def test_a_lock_file_that_something_else_left_is_no_lock(tmp_path):
    (tmp_path / "result.lock").write_bytes(b"\xff garbage")
    with locked(tmp_path / "result"):
        assert (tmp_path / "result.lock").read_text() == str(os.getpid())


WAITER = """
import sys
from pathlib import Path
from compress.files import wait_for_others
wait_for_others(Path(sys.argv[1]))
print("free", flush=True)
"""


def test_one_that_waits_for_a_folder_goes_on_when_the_other_has_left_it(tmp_path):
    wait_for_others(tmp_path / "nobody")
    assert not (tmp_path / "nobody").exists()
    with alone_in(tmp_path / "run", tmp_path):
        waiter = subprocess.Popen([sys.executable, "-c", WAITER, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            waiter.wait(0.5)
    assert waiter.communicate()[0] == "free\n"


def test_only_a_resumable_result_is_gone_on_with(tmp_path):
    def stopped(partial):
        partial.write_text("half")
        raise KeyboardInterrupt

    def rest(partial):
        partial.write_text(partial.read_text() + " and half" if partial.exists() else "anew")

    for resumable in (False, True):
        with pytest.raises(KeyboardInterrupt):
            cached(tmp_path / f"{resumable}", stopped, resumable=resumable)
        cached(tmp_path / f"{resumable}", rest, resumable=resumable)
    assert (tmp_path / "False").read_text() == "anew"
    assert (tmp_path / "True").read_text() == "half and half"
    assert not list(tmp_path.glob("*.partial"))


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file: .*COMPRESS_CACHE"):
        cached(tmp_path / "file" / "result", lambda partial: partial.write_text(""))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": 1e999}', "1e999"),
        (f'{{"a": {"9" * 50}}}', "too large"),
        ('{"a": 1, "a": 2}', "'a' is named twice"),
        ("[" * 100_000, "nested too deeply"),
        ("\udcff", "decode"),
    ],
)
def test_json_that_readers_would_take_for_different_things_is_none(tmp_path, text, word):
    (tmp_path / "a.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=word):
        read_json(tmp_path / "a.json")


def test_json_is_read_from_files_alone(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1, 2.5, true, null]}')
    assert read_json(tmp_path / "a.json") == {"a": [1, 2.5, True, None]}
    os.mkfifo(tmp_path / "fifo")
    for path, word in ((tmp_path / "fifo", "a FIFO"), (Path("/dev/zero"), "a device"), (tmp_path, "a folder")):
        with pytest.raises(OSError, match=f"is {word}, not a file"):
            read_json(path)
