"""Starts and ends the processes that are measured, so that none is left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parent.parent
CALLBACK_TOKEN = "callback-token-of-the-benchmark"
API_KEY = "api-key-of-the-benchmark"
STOP_WITHIN_SECONDS = 30


def environment(database_url: str, **variables: Any) -> dict[str, str]:
    """Return the environment of a process of Backstop, or of one like it: nothing else is set."""
    return {
        "PATH": os.environ["PATH"],
        "TMPDIR": tempfile.gettempdir(),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(REPOSITORY),
        "DATABASE_URL": database_url,
        "CALLBACK_TOKEN": CALLBACK_TOKEN,
        "API_KEY": API_KEY,
        "ACEDATACLOUD_API_TOKEN": "test-token",
        **{name: str(value) for name, value in variables.items()},
    }


class Running:
    """A process whose output is appended to a log in its directory; at the end of its context it is ended.

    It leads a session of its own: Ctrl-C reaches the benchmark alone, which then ends it with all it started.
    """

    def __init__(self, directory: Path, arguments: list[str], environ: Mapping[str, str], name: str) -> None:
        self.log = directory / f"{name}.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                arguments, cwd=directory, env=environ, stdout=log, stderr=log, start_new_session=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process, with what it has started."""
        try:
            if self.process.poll() is None:
                self.process.terminate()
                self.process.wait(STOP_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"It is killed, since it did not stop: {self.log}", file=sys.stderr)
        finally:
            self.kill_all()

    def kill_all(self) -> None:
        """Kill what is left of the process and of those it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def run_python(directory: Path, environ: Mapping[str, str], *arguments: str) -> str:
    """Run Python in a directory and return what it printed. Raises RuntimeError when it fails."""
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=directory, env=environ, capture_output=True, text=True
    )
    if ended.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} failed:\n{ended.stdout}{ended.stderr}")
    return ended.stdout
