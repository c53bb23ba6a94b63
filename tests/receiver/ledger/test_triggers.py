"""The triggers are SQL files, and what they know is checked here against the constants of Python."""

import re
from pathlib import Path

import pytest

from receiver.ledger import models, outbox
from receiver.ledger.engine import schema
from receiver.ledger.reading import tally
from receiver.upstream.results import EXPIRED, FINAL, PENDING

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
_HEAD = {
    "sqlite": """\
-- What keeps `tally`, version 3: how many tasks of each kind there are (see receiver/ledger/reading/tally.py).
-- The conditions and steps are those of receiver/ledger/models.py and tally.py; a test compares them.
""",
    "postgresql": """\
-- What keeps `tally`, version 4: how many tasks of each kind there are (see receiver/ledger/reading/tally.py).
-- The conditions and steps are those of receiver/ledger/task.py and tally.py; a test compares them.
-- Once a statement: the rows of one group of callbacks change few totals.
""",
}


_EVENT = ("task_id", "sequence", "type", "status", "settled_by", "confirmed", "happened_at")
_CLOCK = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f', 'now')",
    "postgresql": "clock_timestamp() AT TIME ZONE 'UTC'",
}
_WHEN_IT_HAPPENED = """\
-- An event happened when the task was settled, given up or doubted. A callback that contradicts upstream
-- leaves no time but that of the next look-up, which is due at once. The clock is for other writers than ours.
"""
_HEAD_OF_EVENTS = {
    "sqlite": f"""\
-- What writes `event`, version 3: what the customer's app is told (see receiver/ledger/outbox.py).
-- The conditions are those of receiver/ledger/task.py; a test compares them.
{_WHEN_IT_HAPPENED}""",
    "postgresql": f"""\
-- What writes `event`, version 3: what the customer's app is told (see receiver/ledger/outbox.py).
-- The conditions are those of receiver/ledger/task.py; a test compares them.
{_WHEN_IT_HAPPENED}\
-- Once a statement. It looks first: an INSERT takes the lock that readers wait for, even if it inserts nothing.
-- Without nested loops: the rows have no index, and 20,000 updated at once would take a minute instead of a second.
""",
}


def of_row(condition: str) -> str:
    """A condition of the models, about one row of a trigger; it is never NULL."""
    columns = "|".join(field.column_name for field in models.Task._meta.sorted_fields)
    named = re.sub(rf"(?<![\w'.])({columns})(?![\w'])", r"{row}.\1", condition)
    return f"COALESCE({named}, FALSE)"


def took(kind: str) -> str:
    if kind == "postgresql":
        steps = ",".join(map(str, tally.STEPS))
        seconds = f"({_SECONDS[kind]})::float8"
        return f"CASE WHEN {{row}}.settled_at IS NULL THEN -1 ELSE width_bucket({seconds}, '{{{{{steps}}}}}'::float8[]) END"
    steps = "\n".join(f"        WHEN s < {step} THEN {number}" for number, step in enumerate(tally.STEPS))
    # The LIMIT keeps SQLite from computing the seconds anew for each comparison.
    return (
        "CASE WHEN {row}.settled_at IS NULL THEN -1 ELSE (\n"
        f"      SELECT CASE\n{steps}\n        ELSE {len(tally.STEPS)} END\n"
        f"      FROM (SELECT {_SECONDS[kind]} AS s LIMIT 1) AS spent) END"
    )


def key(kind: str) -> tuple[str, ...]:
    """The key of a row's total, except the shard."""
    return (
        *(_HOUR[kind], "{row}.service", "{row}.status", "COALESCE({row}.settled_by, '')"),
        *(of_row(models.MISSED.sql), of_row(models.DISPUTED.sql), took(kind)),
    )


_INSERT = f"  INSERT INTO tally ({', '.join(_KEY)}, tasks)"
_ADD = f"ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET tasks = tally.tasks + excluded.tasks;\n"


def add(row: str, number: int) -> str:
    """What a trigger of SQLite adds to the total of one row."""
    values = ",\n    ".join((*key("sqlite"), _SHARD["sqlite"], str(number))).replace("{row}", row)
    return f"{_INSERT} VALUES (\n    {values})\n  {_ADD}"


def counted(rows: str, number: int) -> str:
    """The keys of all rows that a statement has inserted, deleted or updated."""
    names = _KEY[:-1]
    columns = (
        f"{part} AS {name}".replace("{row}", rows)
        for part, name in zip(key("postgresql"), names, strict=True)
    )
    listed = ",\n      ".join((*columns, f"{number} AS tasks"))
    return f"    SELECT\n      {listed.replace('{{', '{').replace('}}', '}')}\n    FROM {rows}\n"


def add_all(*changed: str) -> str:
    """What a trigger of PostgreSQL adds to the totals of all these rows."""
    names = ", ".join(_KEY[:-1])
    rows = "    UNION ALL\n".join(changed)
    return (
        f"{_INSERT}\n  SELECT {names}, {_SHARD['postgresql']}, SUM(tasks) FROM (\n{rows}  ) AS changed\n"
        f"  GROUP BY {names} HAVING SUM(tasks) <> 0\n  {_ADD}"
    )


def changed(operator: str) -> str:
    before, after = (", ".join(f"{row}.{column}" for column in _COLUMNS) for row in ("OLD", "NEW"))
    return f"({before})\n  {operator} ({after})"


def of_sqlite() -> str:
    old, new = add("OLD", -1), add("NEW", 1)
    return (
        f"{_HEAD['sqlite']}\nCREATE TRIGGER task_tally_insert AFTER INSERT ON task BEGIN\n{new}END;\n"
        f"\nCREATE TRIGGER task_tally_delete AFTER DELETE ON task BEGIN\n{old}END;\n"
        f"\nCREATE TRIGGER task_tally_update AFTER UPDATE ON task WHEN\n  {changed('IS NOT')}\nBEGIN\n{old}{new}END;\n"
    )


_TABLES = {
    "insert": "NEW TABLE AS new_tasks",
    "delete": "OLD TABLE AS old_tasks",
    "update": "OLD TABLE AS old_tasks NEW TABLE AS new_tasks",
}


def by_statement(event: str, name: str, body: str) -> str:
    """A trigger of PostgreSQL that runs once a statement, with its function."""
    planned = "SET enable_nestloop TO off " if "JOIN" in body else ""
    return (
        f"\nCREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql {planned}AS $$ BEGIN\n{body}  RETURN NULL;\nEND $$;\n"
        f"\nCREATE TRIGGER {name} AFTER {event.upper()} ON task REFERENCING {_TABLES[event]}\n"
        f"  FOR EACH STATEMENT EXECUTE FUNCTION {name}();\n"
    )


def of_postgresql() -> str:
    old, new = counted("old_tasks", -1), counted("new_tasks", 1)
    rows = {"insert": (new,), "delete": (old,), "update": (old, new)}
    return _HEAD["postgresql"] + "".join(
        by_statement(event, f"task_tally_{event}", add_all(*changed)) for event, changed in rows.items()
    )


@pytest.mark.parametrize(("kind", "expected"), [("sqlite", of_sqlite()), ("postgresql", of_postgresql())])
def test_the_tally_counts_by_the_conditions_and_steps_of_python(kind, expected):
    version = {"sqlite": "v3", "postgresql": "v4"}[kind]
    assert (_SQL / f"tally_{version}.{kind}.sql").read_text() == expected


@pytest.mark.parametrize(("kind", "version"), [("sqlite", "v3"), ("postgresql", "v4")])
def test_the_totals_of_deleted_tasks_go_by_the_same_conditions(kind, version):
    counting = (_SQL / f"tally_{version}.{kind}.sql").read_text()
    ours = (_SQL / f"tally_deleted_v1.{kind}.sql").read_text()
    row = {"sqlite": "OLD.", "postgresql": "old_tasks."}[kind]
    begins = (f"COALESCE({row}settled_by = ", f"COALESCE((({row}callback_status")
    lines = (line.strip().split(" AS ")[0].rstrip(",") for line in counting.splitlines())
    conditions = {line for line in lines if line.startswith(begins)}
    assert len(conditions) == 2
    assert all(condition in ours for condition in conditions)


def event(kind: str, type_: str, told: str, old_status: str, old_doubted_at: str) -> str:
    """The values of an event.

    `told` is a status that is not pending if there is an event of it already.
    """
    sequence = (
        f"(SELECT COALESCE(MAX(sequence), CASE {told} WHEN '{PENDING}' THEN 0 ELSE 1 END) + 1 FROM event\n"
        f"      WHERE task_id = NEW.id AND {models.REPEATED.sql})"
    )
    disputed = of_row(models.DISPUTED.sql).format(row="NEW")
    final = ", ".join(f"'{status}'" for status in sorted(FINAL))
    happened_at = (
        f"CASE\n      WHEN NEW.status = {old_status} AND {old_doubted_at} IS NULL AND NEW.doubted_at IS NOT NULL"
        f" THEN NEW.doubted_at\n      WHEN NEW.status = {old_status} THEN NEW.next_lookup_at\n"
        f"      WHEN NEW.status = '{EXPIRED}' THEN NEW.gave_up_at\n      ELSE NEW.settled_at END"
    )
    parts = (
        *("NEW.id", sequence, type_, "NEW.status", "NEW.settled_by"),
        f"CASE WHEN NEW.lookup_status IN ({final}) THEN NOT {disputed} END",
        f"COALESCE({happened_at}, {_CLOCK[kind]})",
    )
    return ",\n    ".join(parts)


def events(kind: str, *old: str) -> tuple[str, str]:
    """The values of the event of a status and of that of a dispute."""
    of_status = event(kind, "'task.' || NEW.status", old[0], *old)
    return of_status, event(kind, f"'{outbox.DISPUTED}'", "NEW.status", *old)


def confirmation(kind: str) -> str:
    """The values of the event of a confirmation. It has no number within its task if there is one other event."""
    sequence = (
        f"(SELECT COALESCE(MAX(sequence) + 1, 1) FROM event\n"
        f"      WHERE task_id = NEW.id AND {models.REPEATED.sql})"
    )
    parts = (
        *("NEW.id", sequence, f"'{outbox.CONFIRMED}'", "NEW.status", "NEW.settled_by", "TRUE"),
        f"COALESCE(NEW.looked_at, {_CLOCK[kind]})",
    )
    return ",\n    ".join(parts)


def conditions(with_old: bool) -> tuple[str, ...]:
    """When the status becomes another one than pending, when a dispute begins, when upstream confirms."""
    disputed = of_row(models.DISPUTED.sql)
    new = f"NEW.status <> '{PENDING}'", disputed.format(row="NEW")
    if not with_old:
        return new
    old = "NEW.status <> OLD.status", f"NOT {disputed.format(row='OLD')}"
    final = ", ".join(f"'{status}'" for status in sorted(FINAL))
    confirmed = (
        f"NEW.lookup_status IN ({final}) AND COALESCE(OLD.lookup_status, '{PENDING}') NOT IN ({final})"
        f" AND NEW.status = OLD.status AND NOT {new[1]}"
    )
    return *(f"{now} AND {before}" for now, before in zip(new, old, strict=True)), confirmed


def write(values: str, condition: str = "") -> str:
    head = f"  INSERT INTO event ({', '.join(_EVENT)})"
    if condition:
        return f"{head} SELECT\n    {values}\n  WHERE {condition};\n"
    return f"{head} VALUES (\n    {values});\n"


def events_of_sqlite() -> str:
    new, begins = conditions(with_old=False), conditions(with_old=True)
    first = events("sqlite", f"'{PENDING}'", "NULL")
    later = (*events("sqlite", "OLD.status", "OLD.doubted_at"), confirmation("sqlite"))
    # One for each kind: it costs the hot path less.
    inserts = "".join(
        f"\nCREATE TRIGGER task_event_insert_{name} AFTER INSERT ON task WHEN\n  {condition}\n"
        f"BEGIN\n{write(values)}END;\n"
        for name, condition, values in zip(("status", "dispute"), new, first, strict=True)
    )
    # One for all: a task may begin to be disputed by what changes its status, which is told first.
    any_of = "\n  OR ".join(f"({condition})" for condition in begins)
    return (
        f"{_HEAD_OF_EVENTS['sqlite']}{inserts}\nCREATE TRIGGER task_event_update AFTER UPDATE ON task WHEN\n"
        f"  {any_of}\n"
        f"BEGIN\n{''.join(map(write, later, begins))}END;\n"
    )


def events_of_postgresql() -> str:
    text = _HEAD_OF_EVENTS["postgresql"]
    for name, tables in (
        ("insert", "new_tasks AS NEW"),
        ("update", "new_tasks AS NEW JOIN old_tasks AS OLD USING (id)"),
    ):
        is_update = name == "update"
        old = ("OLD.status", "OLD.doubted_at") if is_update else (f"'{PENDING}'", "NULL")
        begins = conditions(with_old=is_update)
        told = (*events("postgresql", *old), *([confirmation("postgresql")] if is_update else ()))
        inserts = "".join(
            write_from(tables, values, condition) for values, condition in zip(told, begins, strict=True)
        )
        any_of = "\n    OR ".join(f"({condition})" for condition in begins)
        look = f"SELECT FROM {tables} WHERE\n    {any_of}"
        text += by_statement(name, f"task_event_{name}", f"  IF EXISTS ({look}) THEN\n{inserts}  END IF;\n")
    # NEW and OLD are names of plpgsql, for the row of a trigger by row.
    return re.sub(r"\bOLD\b(?! TABLE)", "was", re.sub(r"\bNEW\b(?! TABLE)", "is_now", text))


def write_from(tables: str, values: str, condition: str) -> str:
    columns = ", ".join(_EVENT)
    return (
        f"  INSERT INTO event ({columns}) SELECT\n    {values}\n"
        f"  FROM {tables}\n  WHERE {condition} ORDER BY NEW.id;\n"
    )


@pytest.mark.parametrize(
    ("kind", "expected"), [("sqlite", events_of_sqlite()), ("postgresql", events_of_postgresql())]
)
def test_events_are_written_by_the_conditions_of_python(kind, expected):
    assert (_SQL / f"outbox_v3.{kind}.sql").read_text() == expected
