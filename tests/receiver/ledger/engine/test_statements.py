from datetime import datetime

import pytest

from receiver.ledger.engine.db import writing
from receiver.ledger.engine.statements import Statement
from receiver.ledger.models import Task

pytestmark = pytest.mark.usefixtures("ledger")

NOW = datetime(2026, 1, 31, 12, 0, 0, 250_000)


def row(task_id, **columns):
    return {
        "id": task_id,
        "created_at": NOW,
        "silent_since": NOW,
        "callback_key": b"\0\xff",
        "ref": None,
    } | columns


def test_it_writes_what_the_query_builder_would_and_builds_the_statement_once():
    built = []

    def build(slots):
        built.append(slots)
        return Task.insert_many(slots)

    insert = Statement(build)
    for n in range(3):
        with writing():
            insert.execute([row(f"t{n}", ref=f"order-{n}")])
    Task.insert(row("t9", ref="order-9")).execute()
    assert len(built) == 1
    kept = {task.id: task for task in Task.select()}
    for name in ("created_at", "silent_since", "status", "attempts", "lookup_key", "type"):
        assert getattr(kept["t1"], name) == getattr(kept["t9"], name)
    assert (kept["t1"].ref, bytes(kept["t1"].callback_key), kept["t1"].created_at) == (
        "order-1",
        b"\0\xff",
        NOW,
    )


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 63, 64, 65, 200])
def test_any_number_of_rows_is_written_by_statements_of_few_sizes(rows):
    sizes = []

    def build(slots):
        sizes.append(len(slots))
        return Task.insert_many(slots)

    insert = Statement(build)
    for batch in ("a", "b"):
        with writing():
            insert.execute([row(f"{batch}{n:03}", ref=f"{batch}{n:03}") for n in range(rows)])
    assert [(task.id, task.ref) for task in Task.select().order_by(Task.id)] == [
        (f"{batch}{n:03}", f"{batch}{n:03}") for batch in ("a", "b") for n in range(rows)
    ]
    assert len(sizes) == len(set(sizes)) <= 7


def test_a_text_that_looks_like_sql_stays_a_text():
    insert = Statement(Task.insert_many)
    with writing():
        insert.execute([row("t1", ref="'); DROP TABLE task; --")])
    assert Task.get().ref == "'); DROP TABLE task; --"


def test_one_that_fails_undoes_them_all_and_the_connection_goes_on():
    insert = Statement(Task.insert_many)
    with pytest.raises(Exception, match=r"(?i)unique"), writing():
        insert.execute([row(task_id) for task_id in ("a", "b", "a", "c")])
    assert Task.select().count() == 0
    with writing():
        insert.execute([row("a")])
    assert Task.select().count() == 1


def test_a_row_of_other_columns_is_refused():
    insert = Statement(Task.insert_many)
    with writing():
        insert.execute([row("t1")])
    with pytest.raises(ValueError, match="other columns"), writing():
        insert.execute([row("t2", type="imagine")])
