"""A program that is started from a preloaded process does what a started interpreter does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.preloaded import Forked, Preloaded

_TELLS = """
import atexit, json, os, signal, sys, threading
atexit.register(print, "at its end")
ignored = [number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN]
print(json.dumps([__name__, sys.argv, sys.path[0], os.getcwd(), os.environ.get("MINE"), os.environ.get("THEIRS"), ignored]))
print(json.dumps([sys.stdin.read(), sys.stdout.isatty(), sys.stdout.encoding, sys.stdout.seekable()]))
"""
_ENDS = {
    "code": "sys.exit(3)",
    "words": "sys.exit('It cannot go on.')",
    "error": "raise ValueError('bad')",
    "signal": "os.kill(os.getpid(), signal.SIGTERM)",
    "at once": "os._exit(4)",
}
ENVIRON = {"PATH": os.environ["PATH"], "THEIRS": "1"}


@pytest.fixture(scope="module")
def preloaded():
    process = Preloaded(sys.executable, ("json", "decimal"), ENVIRON)
    yield process
    process.close()


@pytest.mark.parametrize("how", _ENDS)
@pytest.mark.parametrize("start", [["-m", "program"], ["program.py"]])
def test_it_does_what_a_new_interpreter_does(preloaded, tmp_path, start, how):
    (tmp_path / "program.py").write_text(f"{_TELLS}\n{_ENDS[how]}\n")
    program = start if start[0] == "-m" else [str(tmp_path / start[0])]
    environ = {"PATH": ENVIRON["PATH"], "MINE": "ä"}
    ready = preloaded.run([*program, "a", "--b=ü"], tmp_path, environ, seconds=60)
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        command = [sys.executable, *program, "a", "--b=ü"]
        code = subprocess.run(
            command, cwd=tmp_path, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err
        ).returncode
    assert (ready.returncode, ready.stdout) == (code, (tmp_path / "out").read_text())
    assert ready.stderr.splitlines()[-1:] == (tmp_path / "err").read_text().splitlines()[-1:]


def test_it_is_waited_for_and_signalled_like_a_child(preloaded, tmp_path):
    (tmp_path / "sleeps.py").write_text("import time; print('sleeping', flush=True); time.sleep(60)")
    with open(os.devnull, "rb") as nothing, (tmp_path / "log").open("wb") as log:
        process: Forked = preloaded.start(
            [str(tmp_path / "sleeps.py")], tmp_path, ENVIRON, (nothing, log, log)
        )
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == process.poll() == process.returncode == -signal.SIGKILL
    process.terminate()  # it has ended: nobody else is signalled


def test_an_end_of_which_nobody_tells_is_no_good_end(preloaded, tmp_path):
    (tmp_path / "kills.py").write_text("import os, signal; os.kill(os.getppid(), signal.SIGKILL)")
    assert preloaded.run([str(tmp_path / "kills.py")], tmp_path, ENVIRON, seconds=60).returncode == 255


def test_a_program_that_was_not_started_has_no_id():
    nobody, ends = os.pipe()
    os.close(ends)
    with pytest.raises(RuntimeError, match="was not started"):
        Forked(["program.py"], nobody)


def test_what_is_read_at_a_start_needs_one(preloaded):
    assert preloaded.suits(ENVIRON | {"DATABASE_URL": "sqlite:///x"})
    assert not preloaded.suits(ENVIRON | {"PYTHONUNBUFFERED": "1"})
    assert not preloaded.suits(ENVIRON | {"TZ": "Asia/Tokyo"})


def test_imports_are_not_repeated(preloaded, tmp_path: Path):
    (tmp_path / "looks.py").write_text("import sys; print('decimal' in sys.modules)")
    assert preloaded.run([str(tmp_path / "looks.py")], tmp_path, ENVIRON, seconds=60).stdout == "True\n"
