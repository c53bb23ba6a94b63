"""Starts programs from a process that has imported what they import. Run as a script it is that process.

A test process has one for each kind of program. It forks for each start, and the copy runs the program's `__main__`
as the interpreter would: arguments, environment, directory, output, signals and exit code are those of a new process.
Only the imports are not repeated, which are most of a start's cost.
"""

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

# The originals: gevent replaces these later, and its own need a hub, which does not survive a fork.
from os import fork, waitpid  # isort: skip

# What the interpreter and the C library read once, at their start.
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "TZ")
_SIZE_BYTES = 4
_UNKNOWN = 255  # the exit code where the process that would tell it was killed


Files = tuple[IO[Any], IO[Any], IO[Any]]


class Preloaded:
    """A process that has imported modules. Its `start` gives copies of it a program to run."""

    def __init__(self, python: str, modules: Sequence[str], environ: Mapping[str, str]):
        self._environ = environ
        self._one_at_a_time = threading.Lock()
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [python, __file__, str(theirs.fileno()), *modules],
                env=environ,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def suits(self, environ: Mapping[str, str]) -> bool:
        """Tell whether an interpreter would start alike in this environment."""
        return _of_start(environ) == _of_start(self._environ)

    def start(
        self, arguments: Sequence[str], directory: Path, environ: Mapping[str, str], files: Files
    ) -> "Forked":
        """Start `-m module …` or `script …` in a directory, with these files as its input, output and errors."""
        ended, ends = os.pipe()
        request = json.dumps([list(arguments), str(directory), dict(environ)]).encode()
        with self._one_at_a_time:
            size = len(request).to_bytes(_SIZE_BYTES)
            socket.send_fds(self._channel, [size], [*(file.fileno() for file in files), ends])
            self._channel.sendall(request)
        os.close(ends)
        return Forked(arguments, ended)

    def run(
        self, arguments: Sequence[str], directory: Path, environ: Mapping[str, str], seconds: float
    ) -> "subprocess.CompletedProcess[str]":
        """Start it, wait for its end and return what it printed. Raises TimeoutExpired."""
        with open(os.devnull, "rb") as nothing, TemporaryFile() as out, TemporaryFile() as err:
            process = self.start(arguments, directory, environ, (nothing, out, err))
            try:
                code = process.wait(seconds)
            finally:
                process.kill()
            told = [_whole(file) for file in (out, err)]
        return subprocess.CompletedProcess(process.args, code, *told)

    def close(self) -> None:
        """Let the process end. What it has started goes on."""
        self._channel.close()
        self._process.wait()


class Forked:
    """A started process, with those methods of `subprocess.Popen` that tests use."""

    def __init__(self, arguments: Sequence[str], ended: int) -> None:
        self.args = list(arguments)
        self.returncode: int | None = None
        self._ended = open(ended, "rb", buffering=0)  # noqa: SIM115
        told = self._ended.read(_SIZE_BYTES)
        if not told:  # an id of 0 would mean our own process group
            self._ended.close()
            raise RuntimeError(f"{arguments} was not started: the process that starts programs has ended")
        self.pid = int.from_bytes(told)

    def poll(self) -> int | None:
        """Return the exit code of an ended process, negative for a signal's number."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code. Raises TimeoutExpired."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ended a moment ago, and its exit code is still to come
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], seconds)[0]:
            told = self._ended.read(_SIZE_BYTES)
            self.returncode = int.from_bytes(told, signed=True) if told else _UNKNOWN
            self._ended.close()
        return self.returncode


@contextmanager
def preloading() -> Iterator[None]:
    """Within the block, `find` returns processes. They end with it."""
    global _running
    _running = {}
    try:
        yield
    finally:
        for process in _running.values():
            process.close()
        _running = None


def find(python: str, modules: tuple[str, ...], environ: Mapping[str, str]) -> Preloaded | None:
    """Return the process of an interpreter that has imported these modules; None where programs start as always."""
    if _running is None:
        return None
    if modules not in _running:
        _running[modules] = Preloaded(python, modules, environ)
    return _running[modules] if _running[modules].suits(environ) else None


_running: dict[tuple[str, ...], Preloaded] | None = None


def _whole(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def _of_start(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(_READ_AT_START)}


def _serve(channel: socket.socket) -> list[str]:
    """Fork at each request. Returns the arguments in a forked process, and ends when nobody can ask any more."""
    while True:
        size, files, _, _ = socket.recv_fds(channel, _SIZE_BYTES, 4)
        if not size:
            sys.exit()
        request = json.loads(channel.recv(int.from_bytes(size), socket.MSG_WAITALL))
        if fork() == 0:
            channel.close()
            return _become(request, files)
        for file in files:
            os.close(file)
        _forget_the_ended()


def _become(request: Any, files: list[int]) -> list[str]:
    """Be the parent of the new process until it ends and tell its exit code; return its arguments in it."""
    *standard, ends = files
    if pid := fork():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.write(ends, pid.to_bytes(_SIZE_BYTES))
        for file in standard:
            os.close(file)
        code = os.waitstatus_to_exitcode(waitpid(pid, 0)[1])
        os.write(ends, code.to_bytes(_SIZE_BYTES, signed=True))
        os._exit(0)
    os.close(ends)
    arguments, directory, environ = request
    for number, file in enumerate(standard):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = sys.__stdin__ = _opened_again(sys.stdin, "rb")
    sys.stdout = sys.__stdout__ = _opened_again(sys.stdout, "wb")
    sys.stderr = sys.__stderr__ = _opened_again(sys.stderr, "wb")
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environ)
    return list(arguments)


def _opened_again(stream: Any, mode: str) -> TextIOWrapper:
    """Return what the interpreter would make of the stream's file now: a pipe is no file, for example."""
    raw = open(stream.fileno(), mode, buffering=0 if stream.write_through else -1, closefd=False)  # noqa: SIM115
    return TextIOWrapper(
        raw,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _forget_the_ended() -> None:
    try:
        while waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass


def _run(arguments: list[str]) -> None:
    """Do what `python` does with these arguments."""
    if arguments[0] == "-m":
        sys.path[0] = os.getcwd()
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(arguments[0])
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    channel = socket.socket(fileno=int(sys.argv[1]))
    sys.path[0] = os.getcwd()
    for name in sys.argv[2:]:
        module = import_module(name)
        if name == "gevent.monkey":
            module.patch_all()
        elif name.endswith(".__main__"):  # only for what it imports: a program runs its own
            del sys.modules[name]
    gc.freeze()  # the collector would touch, and so copy, all that a program shares with this process
    arguments = _serve(channel)
    if "gevent" in sys.modules:
        sys.modules["gevent"].reinit()
    _run(arguments)
