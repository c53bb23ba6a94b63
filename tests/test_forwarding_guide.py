"""Runs the receiver of docs/forwarding.md, as its readers would."""

import re
from pathlib import Path

import pytest

from tests.factories import body
from tests.processes import REPOSITORY, Backstop, free_port, wait_until
from tests.upstream import StandIn

GUIDE = (REPOSITORY / "docs" / "forwarding.md").read_text()
SECRET = "whsec_" + "c2VjcmV0" * 4

pytestmark = pytest.mark.processes


def receiver() -> str:
    """Return the program in the guide."""
    (program,) = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
    return program


def test_its_receiver_hears_of_a_result(tmp_path: Path, stand_in: StandIn):
    (tmp_path / "hooks.py").write_text(receiver())
    port = free_port()
    settings = {"FORWARD_URL": f"http://127.0.0.1:{port}/hooks", "FORWARD_SECRET": SECRET}
    with Backstop(tmp_path, stand_in.url, FORWARD_WHEN="settled", **settings) as backstop:
        backstop.migrate()
        backstop.start("app", "-m", "flask", "--app", "hooks", "run", "--port", str(port))
        wait_until(lambda: "Running on" in backstop.log("app"))
        backstop.start_reconciler()
        backstop.start_web()
        wait_until(lambda: "Asking" in backstop.log("reconcile"))
        backstop.post_callback(body("b8b7fdc2"))
        wait_until(lambda: "task.succeeded b8b7fdc2" in backstop.log("app"))


def test_its_receiver_has_a_dozen_lines():
    lines = [line for line in receiver().splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) <= 12
