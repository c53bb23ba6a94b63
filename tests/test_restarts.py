"""Restarts under load, as the platforms do them: a few here. `make restarts` does a hundred."""

from pathlib import Path

import pytest

from tests.processes import Backstop
from tests.restarts import BROKEN, KEPT, restart_often

GRACEFUL_TIMEOUT_SECONDS = 20


@pytest.mark.parametrize("form", ["service", "heroku"])
def test_a_restart_answers_every_callback_that_was_begun(form: str, tmp_path: Path):
    with Backstop(tmp_path, "http://127.0.0.1:9") as backstop:
        figures = restart_often(form, restarts=1, rate=60, backstop=backstop)
    assert figures.outcomes[KEPT] > 0
    assert (figures.outcomes[BROKEN], figures.missing, figures.killed) == (0, 0, 0), figures
    assert figures.slowest_stop < GRACEFUL_TIMEOUT_SECONDS, "it was gunicorn that ended the workers"
