"""The start of the reconciler's process."""

import signal
import subprocess
import sys

import pytest

from tests.processes import REPOSITORY

_DATABASE_HANGS = """
import threading
from reconcile import __main__ as reconciler

def hang():
    print("asked", flush=True)
    threading.Event().wait()

reconciler.require_schema = hang
reconciler._serve(None, None)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_start_that_a_hanging_database_holds_up(number):
    command = [sys.executable, "-c", _DATABASE_HANGS]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "asked\n"
            process.send_signal(number)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
