"""Runs the vendor's published clients, which have an environment of their own: .venv-clients."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import preloaded
from tests.preloaded import Preloaded
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


# What the clients import and somebody else has written: the vendor's own modules read the environment as they are imported.
_LIBRARIES = (
    "click",
    "dotenv",
    "httpx",
    "loguru",
    "mcp.server.fastmcp",
    "pydantic_settings",
    "rich.table",
    "rich.pretty",
)


def programs() -> Preloaded:
    """Return what starts Python programs of the clients' environment."""
    python = str(VENV / "bin" / "python")
    found = preloaded.find(python, _LIBRARIES, variables("", ""))
    assert found is not None
    return found


def run(base_url: str, token: str, directory: Path, command: str, *arguments: str) -> Finished:
    """Run a command of the vendor's to its end, in a directory where it reads a .env."""
    script = str(VENV / "bin" / command)
    done = programs().run([script, *arguments], directory, variables(base_url, token), seconds=90)
    return Finished(done.returncode, done.stdout, done.stderr)


def call_sdk(base_url: str, token: str, directory: Path, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """Make calls of the SDK, one after the other; return what each returned or raised."""
    asked = json.dumps({"base_url": base_url, "token": token, "calls": calls})
    done = programs().run([str(SDK_CALLS), asked], directory, variables(base_url, token), seconds=90)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))
