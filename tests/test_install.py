"""make's progress while it installs packages, and which packages the demo needs."""

import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import install
from tests.processes import REPOSITORY

_INSTALLS = {"demo": "requirements.txt", "run": "requirements.txt", "lint": "requirements-dev.txt"}


@pytest.mark.parametrize(("target", "requirements"), _INSTALLS.items())
def test_each_target_installs_no_more_than_it_needs(tmp_path: Path, target: str, requirements: str):
    say = ["make", "--dry-run", f"VENV={tmp_path}/venv", target]
    said = subprocess.run(say, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    installed = [line.split()[-1] for line in said.splitlines() if "tests/install.py" in line]
    assert installed == [requirements]


def test_the_demo_imports_nothing_beyond_what_it_installs():
    """Run it without the modules of all other packages."""
    lines = (REPOSITORY / "requirements.in").read_text().splitlines()
    pinned = {canonicalize_name(Requirement(line).name) for line in lines if line and line[0] != "#"}
    others = {
        module
        for module, owners in packages_distributions().items()
        if not pinned & {canonicalize_name(owner) for owner in owners}
    }
    assert {"pytest", "playwright", "psutil"} <= others
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(others)!r}))\n"
        "import receiver.app, reconcile.start, tests.demo, tests.upstream.__main__"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("Collecting gevent==26.9.0 (from -r requirements.txt (line 5))", "collecting gevent==26.9.0"),
        (
            "Processing /wheels/flask-3.1.3-py3-none-any.whl (from -r r.txt (line 2))",
            "collecting flask-3.1.3",
        ),
        (
            "  Downloading gevent-26.9.0-cp311-cp311-manylinux_2_28_x86_64.whl (2.2 MB)",
            "downloading gevent-26.9.0 (2.2 MB)",
        ),
        ("  Using cached click-8.5.1-py3-none-any.whl (126 kB)", "downloading click-8.5.1 (126 kB)"),
        ("Installing collected packages: zope.event, flask, gevent", "unpacking 3 packages"),
        (
            "WARNING: Retrying (Retry(total=4)) after connection broken",
            "the package index does not answer; pip tries again",
        ),
        ("WARNING: Location 'file:///x' is ignored", None),
        ("Looking in links: /wheels", None),
        ("", None),
    ],
)
def test_it_tells_what_pip_does(line: str, step: str | None):
    assert install.step_of(line) == step


def test_it_is_not_silent_while_a_step_takes_long(tmp_path: Path, monkeypatch, capfd):
    """A silent command that ends once three lines were printed."""
    monkeypatch.setattr(install, "HEARTBEAT_SECONDS", 0.05)
    (tmp_path / "told").touch()
    told = []

    class Progress(install.Progress):
        def _print(self) -> None:
            super()._print()
            told.append(self._step)
            if len(told) == 4:
                (tmp_path / "told").unlink()

    progress = Progress()
    progress.tell("unpacking")
    code = f"import os, time\nwhile os.path.exists({str(tmp_path / 'told')!r}): time.sleep(0.01)"
    assert install.run([sys.executable, "-c", code], progress) == 0
    assert told[:4] == ["unpacking"] * 4
    assert capfd.readouterr().out.count(" s  unpacking\n") == len(told)


def test_what_a_command_that_fails_has_said_is_shown(capfd):
    code = "import sys; print('no space left'); print('on device', file=sys.stderr); sys.exit(3)"
    assert install.run([sys.executable, "-c", code], install.Progress()) == 3
    shown = capfd.readouterr().err
    assert "no space left" in shown
    assert "on device" in shown
