"""Fills the textbooks' ledgers as Backstop's are filled for a load."""

import json
from collections.abc import Iterator
from pathlib import Path

from bench.bulk import insert_rows
from bench.filling import response, task_id, under_load
from bench.processes import environment, run_python

_COLUMNS = ("id", "status", "response", "created_at")
_CREATED_AT = "2026-01-01 00:00:00.000000"


def fill_textbook(url: str, app: str, tasks: int) -> None:
    """Let a textbook make its tables in a new database, and add the tasks."""
    module = app.partition(":")[0]
    run_python(Path("/"), environment(url), "-c", f"import {module}")
    insert_rows(url, "task", _COLUMNS, _rows(tasks))


def _rows(tasks: int) -> Iterator[tuple[str, str, str | None, str]]:
    for number in range(tasks):
        status, identifier = under_load(number), task_id(number)
        settled = json.dumps(response(identifier)) if status == "succeeded" else None
        yield identifier, status, settled, _CREATED_AT
