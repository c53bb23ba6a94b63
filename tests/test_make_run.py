"""make run: what becomes of the two processes when one ends, with stand-ins that say what they do."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import REPOSITORY, wait_until

_STAYS = "trap 'echo told to end; exit 0' TERM; touch ready; while :; do sleep 0.05; done"
_ENDS = "while [ ! -e ready ]; do sleep 0.05; done; exit 3"
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start `make run` with these commands as the receiver and the reconciler."""

    def start(receiver: str, reconciler: str) -> subprocess.Popen[str]:
        (tmp_path / "bin").mkdir()
        script(tmp_path / "bin" / "flask", "exit 0")
        script(tmp_path / "bin" / "python", f"case $2 in receiver.web) {receiver};; *) {reconciler};; esac")
        for name in ("installed", ".env"):
            (tmp_path / name).touch()
        command = [
            "make",
            "--no-print-directory",
            "--file",
            f"{REPOSITORY}/Makefile",
            f"VENV={tmp_path}",
            "run",
        ]
        return subprocess.Popen(
            command,
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            env=os.environ | {"stopped": "no"},  # a variable of the caller's
        )

    for name in ("requirements.txt", ".env.example"):  # what make looks at; older than what it would make
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    return start


def script(path: Path, commands: str) -> None:
    path.write_text(f"#!/bin/sh\n{commands}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("receiver", "reconciler", "said"),
    [
        (_STAYS, _ENDS, "The reconciler has ended, so the receiver is stopped too."),
        (_ENDS, _STAYS, "The receiver has ended, so the reconciler is stopped too."),
    ],
)
def test_when_one_ends_it_says_so_and_ends_the_other(start: Start, receiver: str, reconciler: str, said: str):
    process = start(receiver, reconciler)
    output, _ = process.communicate(timeout=60)
    assert output.splitlines()[:2] == [said, "told to end"]
    assert process.returncode != 0


def test_ctrl_c_ends_both_and_blames_neither(start: Start, tmp_path: Path):
    both_run = f"touch {tmp_path}/$2; trap 'exit 0' INT TERM; while :; do sleep 0.05; done"
    process = start(both_run, both_run)
    wait_until(lambda: {"receiver.web", "reconcile"} <= set(os.listdir(tmp_path)))
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert "has ended" not in output
    assert process.returncode == -signal.SIGINT  # make ends as it was told to
