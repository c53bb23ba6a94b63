"""Makes a virtual environment and installs a requirements file into it, and shows all along how far it is.

`make` runs it before anything is installed: it needs nothing but Python.
"""

import queue
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

HEARTBEAT_SECONDS = 2.0
_KEPT_CHARACTERS = 4000
_COLLECTED = re.compile(r"(?:Collecting|Processing) (?:\S*/)?([^\s(]+)")
_DOWNLOADED = re.compile(r"\s+(?:Downloading|Using cached) (?:\S*/)?(\S+) (\(.+\))")


class Progress:
    """Tells what is being done, with the seconds since the beginning: on a terminal in one line."""

    def __init__(self) -> None:
        self._began_at, self._told_at, self._step = time.monotonic(), 0.0, ""
        self._in_one_line = sys.stdout.isatty()

    def tell(self, step: str) -> None:
        """Tell that a step begins."""
        self._step = step
        self._print()

    def beat(self) -> None:
        """Tell that the step goes on, when nothing has been told for a while."""
        if time.monotonic() - self._told_at >= HEARTBEAT_SECONDS:
            self._print()

    def _print(self) -> None:
        self._told_at = time.monotonic()
        line = f"{self._told_at - self._began_at:4.0f} s  {self._step}"
        print(f"\r\033[K{line[:78]}" if self._in_one_line else line, end="" if self._in_one_line else "\n")
        sys.stdout.flush()


def main(venv: Path, requirements: Path) -> int:
    """Return the exit code: pip's own, when that fails."""
    print(f"Installing what {requirements} lists into {venv}. That is done once.")
    progress = Progress()
    if not (venv / "bin" / "pip").exists():
        progress.tell("making the virtual environment")
        if code := run([sys.executable, "-m", "venv", str(venv)], progress):
            return code
    progress.tell("looking for the packages")
    # Python compiles what is used when that is first used: all of it would take seconds.
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--no-compile"]
    code = run([*pip, "--disable-pip-version-check", "-r", str(requirements)], progress)
    if not code:
        progress.tell("installed\n" if sys.stdout.isatty() else "installed")
    return code


def run(command: list[str], progress: Progress) -> int:
    """Run a command, tell what it does, and return its exit code. What it said is shown when it failed."""
    said: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(process, lines), daemon=True).start()
        while (line := _next(lines)) is not None:
            said.append(line)
            if step := step_of(line):
                progress.tell(step)
            progress.beat()
    if process.returncode:
        print(f"\n{''.join(said)[-_KEPT_CHARACTERS:]}\nIt failed: {' '.join(command)}", file=sys.stderr)
    return process.returncode


def step_of(line: str) -> str | None:
    """Return what a line of pip's tells of, None where that is of no interest."""
    if collected := _COLLECTED.match(line):
        return f"collecting {_short(collected[1])}"
    if downloaded := _DOWNLOADED.match(line):
        return f"downloading {_short(downloaded[1])} {downloaded[2]}"
    if line.startswith("Installing collected packages:"):
        return f"unpacking {line.count(',') + 1} packages"
    if "Retrying" in line:
        return "the package index does not answer; pip tries again"
    return None


def _short(name: str) -> str:
    """Return the name of a package with its version, without what a wheel's name says of platforms."""
    return re.sub(r"-(?:py|cp)\d.*\.whl$", "", name)


def _read(process: "subprocess.Popen[str]", lines: "queue.SimpleQueue[str | None]") -> None:
    for line in process.stdout or ():
        lines.put(line)
    lines.put(None)


def _next(lines: "queue.SimpleQueue[str | None]") -> str | None:
    """Return the next line, an empty text when none comes for a while, None at the end."""
    try:
        return lines.get(timeout=HEARTBEAT_SECONDS / 4)
    except queue.Empty:
        return ""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
