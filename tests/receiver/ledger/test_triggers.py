"""The triggers are SQL files, and what they know is checked here against the constants of Python."""

import re
from pathlib import Path

import pytest

from receiver.ledger import models
from receiver.ledger.engine import schema
from receiver.ledger.reading import tally

_SQL = Path(schema.__file__).parents[1] / "migrations" / "sql"
_KEY = ("hour", "service", "status", "settled_by", "missed", "disputed", "took", "shard")
# All that the key is made of: cheaper to compare than the key.
_COLUMNS = (
    *("created_at", "service", "status", "settled_by", "callback_status", "lookup_status", "doubted_at"),
    *("settled_at", "submitted_at"),
)
_HOUR = {
    "sqlite": "substr({row}.created_at, 1, 13)",
    "postgresql": "to_char({row}.created_at, 'YYYY-MM-DD HH24')",
}
_SHARD = {"sqlite": "0", "postgresql": "pg_backend_pid()"}
_STARTED = "COALESCE({row}.submitted_at, {row}.created_at)"
_SECONDS = {
    "sqlite": f"(julianday({{row}}.settled_at) - julianday({_STARTED})) * 86400",
    "postgresql": f"EXTRACT(EPOCH FROM {{row}}.settled_at - {_STARTED})",
}
_HEAD = """\
-- What keeps `tally`, version 3: how many tasks of each kind there are (see receiver/ledger/reading/tally.py).
-- The conditions and steps are those of receiver/ledger/models.py and tally.py; a test compares them.
"""


def of_row(condition: str) -> str:
    """A condition of the models, about one row of a trigger; it is never NULL."""
    columns = "|".join(field.column_name for field in models.Task._meta.sorted_fields)
    named = re.sub(rf"(?<![\w'.])({columns})(?![\w'])", r"{row}.\1", condition)
    return f"COALESCE({named}, FALSE)"


def took(kind: str) -> str:
    steps = "\n".join(f"        WHEN s < {step} THEN {number}" for number, step in enumerate(tally.STEPS))
    # The LIMIT keeps SQLite from computing the seconds anew for each comparison.
    return (
        "CASE WHEN {row}.settled_at IS NULL THEN -1 ELSE (\n"
        f"      SELECT CASE\n{steps}\n        ELSE {len(tally.STEPS)} END\n"
        f"      FROM (SELECT {_SECONDS[kind]} AS s LIMIT 1) AS spent) END"
    )


def add(row: str, kind: str, number: int) -> str:
    parts = (
        *(_HOUR[kind], "{row}.service", "{row}.status", "COALESCE({row}.settled_by, '')"),
        *(of_row(models.MISSED.sql), of_row(models.DISPUTED.sql), took(kind), _SHARD[kind]),
    )
    values = ",\n    ".join((*parts, str(number))).replace("{row}", row)
    return (
        f"  INSERT INTO tally ({', '.join(_KEY)}, tasks) VALUES (\n    {values})\n"
        f"  ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET tasks = tally.tasks + excluded.tasks;\n"
    )


def changed(operator: str) -> str:
    before, after = (", ".join(f"{row}.{column}" for column in _COLUMNS) for row in ("OLD", "NEW"))
    return f"({before})\n  {operator} ({after})"


def of_sqlite() -> str:
    old, new = add("OLD", "sqlite", -1), add("NEW", "sqlite", 1)
    return (
        f"{_HEAD}\nCREATE TRIGGER task_tally_insert AFTER INSERT ON task BEGIN\n{new}END;\n"
        f"\nCREATE TRIGGER task_tally_delete AFTER DELETE ON task BEGIN\n{old}END;\n"
        f"\nCREATE TRIGGER task_tally_update AFTER UPDATE ON task WHEN\n  {changed('IS NOT')}\nBEGIN\n{old}{new}END;\n"
    )


def of_postgresql() -> str:
    old, new = add("OLD", "postgresql", -1), add("NEW", "postgresql", 1)
    return (
        f"{_HEAD}\nCREATE FUNCTION tally_task() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN\n"
        f"  IF TG_OP <> 'INSERT' THEN\n{old}  END IF;\n  IF TG_OP <> 'DELETE' THEN\n{new}  END IF;\n"
        "  RETURN NULL;\nEND $$;\n"
        "\nCREATE TRIGGER task_tally AFTER INSERT OR DELETE ON task\n"
        "  FOR EACH ROW EXECUTE FUNCTION tally_task();\n"
        "\nCREATE TRIGGER task_tally_update AFTER UPDATE ON task FOR EACH ROW WHEN (\n"
        f"  {changed('IS DISTINCT FROM')})\n  EXECUTE FUNCTION tally_task();\n"
    )


@pytest.mark.parametrize(("kind", "expected"), [("sqlite", of_sqlite()), ("postgresql", of_postgresql())])
def test_the_tally_counts_by_the_conditions_and_steps_of_python(kind, expected):
    assert (_SQL / f"tally_v3.{kind}.sql").read_text() == expected
