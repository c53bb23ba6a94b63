"""The sender inside a web process, whose sockets, threads and locks are those of gevent."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import REPOSITORY

_ALL_OF_THEM = """
from gevent import monkey
monkey.patch_all()
import sys, pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.mark.processes
def test_the_sender_keeps_its_deadline_in_greenlets(tmp_path: Path):
    tests = REPOSITORY / "tests/receiver/forward/test_sender.py"
    options = [
        "-k",
        "handshake or dripping or flood or hang or threads or tls",
        "-q",
        "-n0",
        "-x",
        "-p",
        "no:cacheprovider",
        f"--basetemp={tmp_path}/inner",
    ]
    command = [sys.executable, "-c", _ALL_OF_THEM, *options, str(tests)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
