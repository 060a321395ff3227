"""What goes wrong at a moment that no one chose: a process is killed, a connection cut, a disk full. Each command is a
process of its own, and so is each server."""

import io
import os
import random
import resource
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from made import Server

PROCESSES = get_context("forkserver")
PROCESSES.set_forkserver_preload(["compress.registry.publish", "compress.registry.fetch", "s3fs", "botocore.parsers"])
_OUTSIDE = {"posix", "_io", "_socket", "fcntl", "select"}
"""Modules whose calls leave the process."""


@dataclass(frozen=True)
class Command:
    """A `compress` command in a process of its own. `killed`: before which of its calls to the system, from where it
    has read its arguments; `full`: the most bytes that a file of it can have. `said`: where its output goes, and
    `calls` how many of these calls there were."""

    arguments: list[str]
    said: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    killed: int | None = None
    full: int | None = None
    calls: Path | None = None

    def start(self) -> Any:
        process = PROCESSES.Process(target=_run, args=(self,))
        process.start()
        return process

    def run(self) -> int:
        process = self.start()
        process.join()
        return process.exitcode


def _run(command: Command) -> None:
    from compress.cli import main

    os.environ.update(command.environment)
    sys.stdout = sys.stderr = said = io.StringIO()
    if command.full is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (command.full, resource.RLIM_INFINITY))
    begun, count = False, 0

    def passed(frame: Any, event: str, called: Any) -> None:
        nonlocal begun, count
        if event == "call" and frame.f_code.co_qualname in ("publish", "fetch"):
            begun = True
        if begun and event == "c_call" and _leaves(called):
            count += 1
            if count == command.killed:
                os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(passed)
    sys.setprofile(passed)
    try:
        code = main(command.arguments)
    except BaseException:
        code = 1
        traceback.print_exc()
    sys.setprofile(None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    command.said.write_text(said.getvalue())
    if command.calls:
        command.calls.write_text(str(count))
    sys.exit(code)


def _leaves(called: Any) -> bool:
    module = getattr(called, "__module__", None) or type(getattr(called, "__self__", None)).__module__
    return module in _OUTSIDE


@contextmanager
def serving(serve: Callable[..., None], *arguments: object) -> Iterator[int]:
    """The port of a server in a process of its own; `serve` gets where to tell it, and `arguments`."""
    here, there = PROCESSES.Pipe()
    process = PROCESSES.Process(target=serve, args=(there, *arguments))
    process.start()
    there.close()  # so that a server which dies before it tells is an EOFError
    try:
        yield here.recv()
    finally:
        process.kill()
        process.join()


def folder_server(told: Connection, root: Path) -> None:
    server = Server(root)
    told.send(server.server_port)
    server.serve_forever()


def store_server(told: Connection) -> None:
    """Like S3; one request after the other, since a write with a condition is one step there."""
    import logging

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.disable()
    application, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def one_by_one(environment: Any, start: Any) -> Any:
        with lock:
            return application(environment, start)

    server = make_server("127.0.0.1", 0, one_by_one, threaded=True)
    told.send(server.server_port)
    server.serve_forever()


def cutter(told: Connection, port: int, seed: int, most: int) -> None:
    """Passes on to `port`, but cuts every second connection, on the average, after fewer than `most` bytes."""
    chance = random.Random(seed)
    listener = socket.create_server(("127.0.0.1", 0))
    told.send(listener.getsockname()[1])
    while True:
        client, _ = listener.accept()
        left = chance.randrange(most) if chance.random() < 0.5 else None
        threading.Thread(target=_pass_on, args=(client, port, left), daemon=True).start()


def _pass_on(client: socket.socket, port: int, left: int | None) -> None:
    server = socket.create_connection(("127.0.0.1", port))
    both = _Both(client, server, left)
    other = threading.Thread(target=both.pump, args=(server, client), daemon=True)
    other.start()
    both.pump(client, server)
    other.join()
    client.close()
    server.close()


@dataclass
class _Both:
    client: socket.socket
    server: socket.socket
    left: int | None

    def pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                if self.left is not None:
                    data, self.left = data[: self.left], max(0, self.left - len(data))
                target.sendall(data)
                if self.left == 0:
                    break
        for each in (self.client, self.server):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
