"""Restarts under load, as the platforms do them: a few here. `make restarts` does a hundred."""

from pathlib import Path

import pytest

from tests.processes import Backstop
from tests.restarts import BROKEN, FORMS, KEPT, restart_often


@pytest.mark.parametrize("form", FORMS)
def test_a_restart_answers_every_callback_that_was_begun(form: str, tmp_path: Path):
    with Backstop(tmp_path, "http://127.0.0.1:9") as backstop:
        figures = restart_often(form, restarts=2, rate=100, backstop=backstop)
    assert figures.outcomes[KEPT] > 100
    assert (figures.outcomes[BROKEN], figures.missing, figures.killed) == (0, 0, 0), figures
