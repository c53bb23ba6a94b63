"""Runs the vendor's published clients, which have an environment of their own: .venv-clients."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.processes import REPOSITORY

VENV = REPOSITORY / ".venv-clients"
MISSING = "The vendor's clients are not installed: make .venv-clients/installed"
SDK_CALLS = Path(__file__).parent / "sdk_calls.py"


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str


def is_installed() -> bool:
    """Tell whether the clients can be run."""
    return (VENV / "installed").exists()


def variables(base_url: str, token: str) -> dict[str, str]:
    """Return the environment of a client. Between two bases, one variable differs and nothing else."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "ACEDATACLOUD_API_BASE_URL": base_url,
        "ACEDATACLOUD_API_TOKEN": token,
        "COLUMNS": "4000",  # the commands wrap their output otherwise
        "PYTHONIOENCODING": "utf-8",
        "LOG_LEVEL": "ERROR",
    }


def run(base_url: str, token: str, directory: Path, command: str, *arguments: str) -> Finished:
    """Run a command of the vendor's to its end."""
    done = subprocess.run(
        [str(VENV / "bin" / command), *arguments],
        cwd=directory,  # they read a .env there
        env=variables(base_url, token),
        capture_output=True,
        text=True,
        timeout=90,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def call_sdk(base_url: str, token: str, directory: Path, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """Make calls of the SDK, one after the other; return what each returned or raised."""
    arguments = json.dumps({"base_url": base_url, "token": token, "calls": calls})
    command = [str(VENV / "bin" / "python"), str(SDK_CALLS), arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=90, check=True)
    return list(json.loads(done.stdout))
