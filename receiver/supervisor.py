"""Keeps programs running: starts one again when it ends, and ends all of them on a signal.

See "Processes" in docs/design.md.
"""

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Above gunicorn's graceful_timeout (20 s). Platforms kill after 30 s.
STOP_WITHIN_SECONDS = 25.0
_HURRY_SECONDS = 2.0  # after a second signal
_LOOK_EVERY_SECONDS = 0.1
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 30.0
_STEADY_AFTER_SECONDS = 60.0  # one that ran for so long has not failed in a row
_PR_SET_PDEATHSIG = 1


def restart_wait(failures: int) -> float:
    """Return the seconds until a program starts again that has failed so often in a row."""
    return min(_FIRST_WAIT_SECONDS * 2.0 ** min(failures - 1, 30), _LONGEST_WAIT_SECONDS)


@dataclass(eq=False)
class Program:
    """A command to keep running.

    With `ends` it has done its work once it exits with 0, and a stop lets it finish. It starts when the
    program `after` has done its work. With `waits_at_most` it starts after so many seconds in any case, and
    as soon as that program has failed.
    """

    name: str
    command: Sequence[str]
    ends: bool = False
    after: "Program | None" = None
    waits_at_most: float | None = None
    is_done: bool = field(default=False, init=False)
    failures: int = field(default=0, init=False)
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    _made_at: float = field(default_factory=time.monotonic, init=False)
    _start_at: float = field(default=0.0, init=False)
    _started_at: float = field(default=0.0, init=False)

    @property
    def pid(self) -> int | None:
        """The id of the running process; None while there is none."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def is_process(self, pid: int) -> bool:
        """Tell whether this is our process, running or ended."""
        return self._process is not None and self._process.pid == pid

    def look(self) -> None:
        """Notice the program's end, and start it when it is time."""
        if self._process and self._process.poll() is not None:
            self._note_end(self._process)
            self._process = None
        if self._process is None and not self.is_done and self._may_start(time.monotonic()):
            self._start()

    def end(self) -> None:
        """Tell the running process to end when it has finished what it does."""
        if self.pid and not self.ends:
            log.info("%s is told to end.", self.name)
            _signal(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process and the processes that it has started."""
        if self._process and self.pid:
            log.error("%s has not ended in time, so it is killed.", self.name)
            _signal_group(self.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # its disk may hang
                self._process.wait(_HURRY_SECONDS)

    def _may_start(self, now: float) -> bool:
        if now < self._start_at:
            return False
        if self.after is None or self.after.is_done:
            return True
        if self.waits_at_most is None:
            return False
        return self.after.failures > 0 or now - self._made_at > self.waits_at_most

    def _start(self) -> None:
        self._started_at = time.monotonic()
        # A group of its own: Ctrl-C must reach only us, as gunicorn drops requests after SIGINT.
        try:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                process_group=0,
                preexec_fn=_end_with_parent(os.getpid()),
            )
        except (OSError, subprocess.SubprocessError) as problem:  # no memory for it, or too many processes
            self.failures += 1
            wait = restart_wait(self.failures)
            self._start_at = time.monotonic() + wait
            log.error("%s CANNOT BE STARTED: %s. It is tried again in %g s.", self.name, problem, wait)
            return
        log.info("%s has started (process %d).", self.name, self._process.pid)

    def _note_end(self, process: "subprocess.Popen[bytes]") -> None:
        if self.ends and process.returncode == 0:
            self.is_done = True
            return
        _signal_group(process.pid, signal.SIGTERM)  # workers whose master was killed still hold its port
        steady = time.monotonic() - self._started_at > _STEADY_AFTER_SECONDS
        self.failures = 1 if steady else self.failures + 1
        wait = restart_wait(self.failures)
        self._start_at = time.monotonic() + wait
        row = "" if self.failures == 1 else f" It has failed {self.failures} times in a row."
        text = "%s HAS ENDED: %s.%s It starts again in %g s."
        log.error(text, self.name, _cause_of(process.returncode), row, wait)


class Supervisor:
    """Runs programs until a signal comes, and then ends them."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self._programs = programs
        self._signals: list[int] = []

    def run(self) -> int:
        """Run the programs until SIGTERM, SIGINT or SIGHUP.

        Returns the exit code: 0 when all have ended in time, 1 when one had to be killed.
        """
        for number in SIGNALS:
            signal.signal(number, lambda number, _: self._signals.append(number))
        while not self._signals:
            for program in self._programs:
                program.look()
            self._reap_orphans()
            time.sleep(_LOOK_EVERY_SECONDS)
        return self._stop()

    def _stop(self) -> int:
        name = signal.Signals(self._signals[0]).name
        log.info("%s: stopping. What is in progress has %g s to finish.", name, STOP_WITHIN_SECONDS)
        for program in self._programs:
            program.end()
        deadline = time.monotonic() + STOP_WITHIN_SECONDS
        is_hurried = False
        while running := [program for program in self._programs if program.pid]:
            if len(self._signals) > 1 and not is_hurried:
                is_hurried = True
                deadline = min(deadline, time.monotonic() + _HURRY_SECONDS)
            if time.monotonic() > deadline:
                for program in running:
                    program.kill()
                return 1
            time.sleep(_LOOK_EVERY_SECONDS)
        log.info("Stopped.")
        return 0

    def _reap_orphans(self) -> None:
        """Collect ended processes that we did not start: as a container's first process we inherit them."""
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if any(program.is_process(ended.si_pid) for program in self._programs):
                    return  # the next look collects it
                os.waitpid(ended.si_pid, 0)


def _cause_of(returncode: int) -> str:
    if returncode < 0:
        return f"it was killed by {signal.Signals(-returncode).name}"
    return f"it exited with {returncode}"


def _end_with_parent(parent: int) -> Callable[[], None] | None:
    """Return what makes a new process get SIGTERM when we die, even of SIGKILL. Only Linux can do that."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
