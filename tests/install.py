"""Creates a virtual environment, installs a requirements file into it, and shows its progress.

`make` runs this before anything is installed, so it needs only Python.
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
    """Prints the current step and the seconds since the start. On a terminal it rewrites one line."""

    def __init__(self) -> None:
        self._began_at, self._told_at, self._step = time.monotonic(), 0.0, ""
        self._in_one_line = sys.stdout.isatty()

    def tell(self, step: str) -> None:
        """Print that a step begins."""
        self._step = step
        self._print()

    def beat(self) -> None:
        """Print that the step continues, if nothing was printed for a while."""
        if time.monotonic() - self._told_at >= HEARTBEAT_SECONDS:
            self._print()

    def _print(self) -> None:
        self._told_at = time.monotonic()
        line = f"{self._told_at - self._began_at:4.0f} s  {self._step}"
        print(f"\r\033[K{line[:78]}" if self._in_one_line else line, end="" if self._in_one_line else "\n")
        sys.stdout.flush()


def main(venv: Path, requirements: Path) -> int:
    """Install and return the exit code, which is pip's own if pip fails."""
    print(f"Installing what {requirements} lists into {venv}. That is done once.")
    progress = Progress()
    if not (venv / "bin" / "pip").exists():
        progress.tell("making the virtual environment")
        if code := run([sys.executable, "-m", "venv", str(venv)], progress):
            return code
    progress.tell("looking for the packages")
    # Compiling everything now would take seconds. Python compiles each module at its first use.
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--no-compile"]
    code = run([*pip, "--disable-pip-version-check", "-r", str(requirements)], progress)
    if not code:
        progress.tell("installed\n" if sys.stdout.isatty() else "installed")
    return code


def run(command: list[str], progress: Progress) -> int:
    """Run a command, print its progress, and return its exit code. Print its output if it fails."""
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
    """Return the step that a line of pip's output reports; None if it is of no interest."""
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
    """Return a package's name and version, without the platform tags of a wheel's file name."""
    return re.sub(r"-(?:py|cp)\d.*\.whl$", "", name)


def _read(process: "subprocess.Popen[str]", lines: "queue.SimpleQueue[str | None]") -> None:
    for line in process.stdout or ():
        lines.put(line)
    lines.put(None)


def _next(lines: "queue.SimpleQueue[str | None]") -> str | None:
    """Return the next line; "" if none comes for a while; None at the end."""
    try:
        return lines.get(timeout=HEARTBEAT_SECONDS / 4)
    except queue.Empty:
        return ""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
