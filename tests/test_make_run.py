"""make run, with stand-ins for its commands."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.processes import REPOSITORY, wait_until


@pytest.fixture
def running(tmp_path: Path) -> subprocess.Popen[str]:
    """`make run`, whose `python` notes how it was called and then runs until a signal comes."""
    for name in ("requirements.txt", ".env.example"):  # what make looks at; older than what it would make
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "flask", "echo flask $*")
    runs = (
        "echo python $*; trap 'echo told to end; exit 0' INT TERM; touch ready; while :; do sleep 0.05; done"
    )
    script(tmp_path / "bin" / "python", runs)
    for name in ("installed", ".env"):
        (tmp_path / name).touch()
    command = ["make", "--no-print-directory", "--file", f"{REPOSITORY}/Makefile", f"VENV={tmp_path}", "run"]
    return subprocess.Popen(
        command,
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    )


def script(path: Path, commands: str) -> None:
    path.write_text(f"#!/bin/sh\n{commands}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_what_is_missing_and_runs_the_whole_service_until_a_signal(
    running: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
):
    wait_until((tmp_path / "ready").exists)
    if number == signal.SIGINT:
        os.killpg(running.pid, number)  # Ctrl-C in a terminal
    else:
        running.send_signal(number)
    output, _ = running.communicate(timeout=60)
    assert output.splitlines()[:3] == ["flask --app wsgi next-steps", "python -m receiver", "told to end"]
    # make dies by the signal, or exits with 2 when it has seen its command end first
    assert running.returncode in (-number, 2)
