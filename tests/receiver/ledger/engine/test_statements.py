from datetime import datetime, timedelta

import pytest

from receiver.ledger.engine.db import writing
from receiver.ledger.engine.statements import Query, Statement
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


def test_what_a_statement_returns_is_returned_for_all_of_its_portions():
    insert = Statement(lambda rows: Task.insert_many(rows).on_conflict_ignore().returning(Task.id))
    with writing():
        assert insert.returning([row("t1")]) == [("t1",)]
        told = insert.returning([row(f"t{n}") for n in range(70)])
    assert sorted(told) == sorted((f"t{n}",) for n in range(70) if n != 1)
    assert Task.select().count() == 70


class TestQuery:
    @pytest.fixture(autouse=True)
    def tasks(self, ledger):
        Task.insert_many([row(f"t{n}", created_at=NOW + n * timedelta(hours=1)) for n in range(4)]).execute()

    def test_it_brings_what_the_query_builder_would_and_is_built_once(self):
        built = []

        def build(since, limit):
            built.append(since)
            return Task.select().where(Task.created_at >= since).order_by(Task.id).limit(limit)

        query = Query(build)
        for n in range(3):
            values = {"since": NOW + n * timedelta(hours=1), "limit": 2}
            found, expected = query.objects(Task, **values), list(build(**values))
            assert [task.__data__ for task in found] == [task.__data__ for task in expected]
            assert len(found) == 2
        assert len(built) == 1 + 3

    def test_a_value_can_have_something_added_each_time_it_comes(self):
        since = Query(
            lambda now: Task.select(Task.id).where(
                Task.created_at > now - timedelta(hours=1),
                Task.created_at < now + timedelta(hours=2) - timedelta(hours=1),
            )
        )
        for n in range(4):
            assert [task.id for task in since.objects(Task, now=NOW + n * timedelta(hours=1))] == [f"t{n}"]

    def test_a_single_value_is_none_without_a_row(self):
        named = Query(lambda task_id: Task.select(Task.id).where(Task.id == task_id))
        assert [named.scalar(task_id=task_id) for task_id in ("t1", "t9", "' OR 1 = 1 --")] == [
            "t1",
            None,
            None,
        ]

    def test_a_list_may_be_of_any_length_and_few_lengths_are_built(self):
        built = []

        def build(ids, besides):
            built.append(len(ids))
            return Task.select(Task.id).where(Task.id.in_(ids), Task.id.not_in(besides)).order_by(Task.id)

        listed = Query(build)
        for ids in (
            [],
            ["t2"],
            ["t0", "t3"],
            ["t3", "t1", "t0"],
            ["t0", "t1", "t2", "t3"],
            ["t2", "t2", "t9"],
        ):
            expected = [(task_id,) for task_id in sorted({*ids} & {"t0", "t2", "t3"})]
            assert listed.rows(ids=ids, besides=["t1"]) == expected
        assert built == [0, 1, 2, 4]

    def test_other_columns_make_another_statement_and_it_tells_how_many_rows_it_changed(self):
        change = Query(lambda since, **columns: Task.update(**columns).where(Task.created_at >= since))
        assert change.execute(since=NOW + timedelta(hours=2), ref="late") == 2
        assert change.execute(since=NOW, type="imagine") == 4
        assert change.execute(since=NOW + timedelta(hours=3), ref="last") == 1
        assert [(task.type, task.ref) for task in Task.select().order_by(Task.id)] == [
            ("imagine", ref) for ref in (None, None, "late", "last")
        ]
