"""Every change that the customer's app is to be told leaves its event, and readers miss none."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peewee import fn
from playhouse.migrations import Runner

from receiver.clock import utcnow
from receiver.ledger import mending, outbox, store
from receiver.ledger.engine import schema
from receiver.ledger.engine.db import init_database, on_postgresql, writing
from receiver.ledger.engine.schema import migrate
from receiver.ledger.evidence import Discovered
from receiver.ledger.models import REPEATED, Event, Task, database
from receiver.upstream import services
from receiver.upstream.results import FINAL, read_item
from tests.factories import (
    DAY,
    TIMETABLE,
    body,
    failed_item,
    failure_body,
    finished_item,
    give_up,
    item,
    look_up,
    record,
    register,
)
from tests.properties import on_a_ledger
from tests.receiver.ledger.test_order import STEPS, Step, callback, rolled_back

NOW = datetime(2026, 1, 31, 12, 0, 0, 250_000)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
_FEWEST = (Task.id, Task.service, Task.created_at, Task.silent_since)
SONG = {"success": True, "data": [{"state": "pending", "audio_url": "https://x/1.mp3"}]}


def adopted(make: Callable[..., dict[str, Any]]) -> Step:
    return lambda task_id: store.adopt(
        [Discovered(read_item(make(task_id)), services.DEFAULT.name)], utcnow(), timetable=TIMETABLE
    )


def asked_late(after: timedelta, response: dict[str, Any] | None = None) -> Step:
    def step(task_id: str) -> None:
        store.ask_now(task_id, utcnow() + after)
        look_up([item(task_id, response)], utcnow() + after + SECOND)

    return step


# Several steps where it takes so many: three late answers give a task up.
WAYS: list[list[Step]] = [
    *([step] for step in STEPS),
    [callback(lambda task_id: f'{{"task_id": "{task_id}", "image_url": "https://x/1.png"}}'.encode())],
    [adopted(finished_item)],
    [adopted(failed_item)],
    [asked_late(HOUR)],
    [asked_late(2 * DAY)] * 3,
    [asked_late(2 * DAY, SONG)] * 3,
    [lambda _: mending.mend_after_future(utcnow())],
]


def told(task: Task, before: Task | None) -> list[str]:
    """Return the types of the events that lead from one state of a task to another."""
    types = []
    if task.status not in ("pending", before.status if before else "pending"):
        types.append(f"task.{task.status}")
    if task.disputed and not (before and before.disputed):
        types.append("task.disputed")
    if before and task.status == before.status and task.confirmed and before.lookup_status not in FINAL:
        types.append("task.confirmed")
    return types


def numbers(events: list[Event]) -> list[int]:
    """Return the numbers that events of one task should have: a confirmation shares that of the one before."""
    expected: list[int] = []
    for position, event in enumerate(events):
        is_shared = event.type == "task.confirmed" and not any(one.repeats for one in events[:position])
        expected.append(1 if is_shared else max(expected, default=0) + 1)
        event.repeats = expected[-1] > 1 or event.type in ("task.disputed", "task.expired")
    return expected


def read_all(page: int = 3) -> Iterator[Event]:
    cursor = 0
    while events := outbox.events_after(cursor, page):
        yield from events
        cursor = events[-1].id


@pytest.mark.usefixtures("ledger")
class TestWhatIsWritten:
    @on_a_ledger
    @given(st.lists(st.tuples(st.sampled_from(WAYS), st.sampled_from(("t1", "t2"))), max_size=7))
    def test_every_way_of_settling_leaves_exactly_the_events_of_the_changes(self, ways):
        with rolled_back():
            before: dict[str, Task] = {}
            events: list[Event] = []
            for step, task_id in [(step, task_id) for way, task_id in ways for step in way]:
                step(task_id)
                after = {task.id: task for task in Task.select()}
                new = outbox.events_after(events[-1].id if events else 0, 100)
                assert {event.task_id for event in new} <= after.keys()
                for task in after.values():
                    ours = [event for event in new if event.task_id == task.id]
                    assert [event.type for event in ours] == told(task, before.get(task.id))
                    for event in ours:
                        then = (event.status, event.settled_by, event.confirmed)
                        assert then == (task.status, task.settled_by, task.confirmed)
                before, events = after, events + new
            for task_id in before:
                ours = [event for event in events if event.task_id == task_id]
                assert [event.sequence for event in ours] == numbers(ours)

    @pytest.mark.parametrize(
        ("steps", "expected"),
        [
            ([lambda: record(body(), NOW)], [("task.succeeded", NOW)]),
            ([lambda: register("t1"), lambda: record(failure_body(), NOW)], [("task.failed", NOW)]),
            (
                [
                    lambda: store.adopt(
                        [Discovered(read_item(failed_item()), services.DEFAULT.name)],
                        NOW,
                        timetable=TIMETABLE,
                    )
                ],
                [("task.failed", NOW)],
            ),
            (
                [lambda: register("t1", now=NOW), lambda: look_up([finished_item()], NOW + HOUR)],
                [("task.succeeded", NOW + HOUR)],
            ),
            (
                [lambda: register("t1", now=NOW), lambda: give_up([], NOW + 2 * DAY)],
                [("task.expired", NOW + 2 * DAY + 2 * timedelta(minutes=5))],
            ),
            (
                [lambda: record(body(), NOW, confirm=True), lambda: look_up([item()], NOW + HOUR)],
                [("task.succeeded", NOW), ("task.disputed", NOW + HOUR)],
            ),
            (
                [lambda: record(body(), NOW, confirm=True), lambda: look_up([failed_item()], NOW + SECOND)],
                [("task.succeeded", NOW), ("task.failed", NOW + SECOND), ("task.disputed", NOW + SECOND)],
            ),
            (
                [
                    lambda: register("t1", now=NOW, grace=timedelta(0)),
                    lambda: look_up([finished_item()], NOW),
                    lambda: record(failure_body(), NOW + SECOND),
                ],
                [("task.succeeded", NOW), ("task.disputed", NOW + SECOND)],
            ),
            (
                [
                    lambda: record(b'{"task_id": "t1", "image_url": "https://x/1.png"}', NOW),
                    lambda: give_up([], NOW + 2 * DAY),
                ],
                [("task.succeeded", NOW + 2 * DAY + 2 * timedelta(minutes=5))],
            ),
        ],
    )
    def test_it_happened_when_its_writer_says(self, steps, expected):
        for step in steps:
            step()
        assert [(event.type, event.happened_at) for event in read_all()] == expected

    def test_a_task_that_is_opened_again_and_given_up_again_is_told_twice(self):
        now = utcnow()
        register("t1", now=now)
        give_up([], now + 30 * DAY)
        mending.mend_after_future(now)
        give_up([], now + 2 * DAY)
        assert [(event.type, event.sequence) for event in read_all()] == [
            ("task.expired", 1),
            ("task.expired", 2),
        ]

    def test_what_is_not_committed_is_not_told(self):
        with rolled_back():
            record(body())
            assert len(list(read_all())) == 1
        assert list(read_all()) == []

    def test_an_earlier_event_is_found_by_an_index_that_holds_few(self):
        register(*(f"t{n}" for n in range(200)))
        for n in range(200):
            record(body(f"t{n}"))
        earlier = Event.select(fn.MAX(Event.sequence)).where(Event.task_id == "t1", REPEATED)
        explain = "EXPLAIN" if on_postgresql() else "EXPLAIN QUERY PLAN"
        with database.atomic():
            if on_postgresql():  # so few rows it would rather read all
                database.execute_sql("SET LOCAL enable_seqscan = off")
            plan = str(database.execute_sql(f"{explain} {earlier.sql()[0]}", earlier.sql()[1]).fetchall())
        assert "event_repeated" in plan, plan
        assert Event.select().where(REPEATED).count() == 0

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite's triggers run by row
    def test_a_statement_may_change_any_number_of_tasks(self):
        with database.atomic():
            for some in range(0, 20_000, 4_000):
                Task.insert_many(
                    [(f"t{some + n}", "other", NOW, NOW) for n in range(4_000)], _FEWEST
                ).execute()
            database.execute_sql("SET LOCAL statement_timeout TO '10s'")
            assert Task.update(attempts=1).execute() == 20_000

    def test_a_number_is_never_used_again(self):
        record(body("t1"))
        newest = outbox.events_after(0, 1)[0].id
        Event.delete().execute()
        record(body("t2"))
        assert [(event.id, event.sequence) for event in read_all()] == [(newest + 1, 1)]


class TestReading:
    def test_it_pages_by_number(self, ledger):
        for n in range(5):
            record(body(f"t{n}"))
        assert [event.task_id for event in read_all(page=2)] == ["t0", "t1", "t2", "t3", "t4"]
        last = outbox.events_after(3, 100)
        assert [event.task_id for event in last] == ["t3", "t4"]
        assert outbox.events_after(last[-1].id, 100) == []

    def test_readers_beside_writers_miss_none(self, ledger):
        ids = [f"t{n:03}" for n in range(160)]
        register(*ids)
        rng, failures = random.Random(1), []
        is_over, read = threading.Event(), [[], []]
        work = [(task_id, rng.random() * 0.004, rng.random() < 0.2) for task_id in ids]

        def settle(some):
            for task_id, pause, gives_up_first in some:
                for fails in (True, False) if gives_up_first else (False,):
                    try:
                        with writing():
                            Task.update(status="failed", settled_at=NOW).where(Task.id == task_id).execute()
                            time.sleep(pause)  # others take higher numbers meanwhile
                            if fails:
                                raise KeyError
                    except KeyError:
                        pass

        def follow(events):
            try:
                while True:
                    is_last = is_over.is_set()
                    page = outbox.events_after(events[-1].id if events else 0, 7)
                    events += page
                    if is_last and not page:
                        return
            except Exception as problem:
                failures.append(problem)
                raise

        writers = [threading.Thread(target=settle, args=(work[n::4],)) for n in range(4)]
        readers = [threading.Thread(target=follow, args=(events,)) for events in read]
        for thread in readers + writers:
            thread.start()
        for thread in writers:
            thread.join()
        is_over.set()
        for thread in readers:
            thread.join()
        assert not failures
        for events in read:
            numbers = [event.id for event in events]
            assert numbers == sorted(set(numbers))
            assert sorted(event.task_id for event in events) == ids


@pytest.fixture
def other(ledger: str) -> Iterator[psycopg.Connection]:
    """Another connection to the same PostgreSQL, in a transaction of its own."""
    with psycopg.connect(ledger) as connection:
        yield connection


@pytest.mark.parametrize("database_url", ["postgresql", "pooler"], indirect=True)  # SQLite has one writer
class TestReadingBesideOpenTransactions:
    def test_a_reader_waits_for_one_that_may_have_taken_a_lower_number(self, other, monkeypatch):
        register("first", "second")
        other.execute("UPDATE task SET status = 'failed' WHERE id = 'first'")
        record(body("second"))
        monkeypatch.setattr(outbox, "_WRITERS_WITHIN_SECONDS", 0.05)
        assert outbox.events_after(0, 10) == []
        monkeypatch.setattr(outbox, "_WRITERS_WITHIN_SECONDS", 30)
        looks = []
        monkeypatch.setattr(outbox.time, "sleep", lambda _: looks.append(1) or other.commit())
        assert [event.task_id for event in outbox.events_after(0, 10)] == ["first", "second"]
        assert looks == [1]

    def test_it_waits_for_nobody_when_it_has_read_all(self, other, monkeypatch):
        record(body("t1"))
        (event,) = read_all()
        register("t2")
        other.execute("UPDATE task SET status = 'failed' WHERE id = 't2'")
        monkeypatch.setattr(outbox.time, "sleep", lambda _: pytest.fail("it waits"))
        assert outbox.events_after(event.id, 10) == []

    def test_it_waits_for_no_newcomer(self, other, ledger, monkeypatch):
        register("first", "second", "third")
        other.execute("UPDATE task SET status = 'failed' WHERE id = 'first'")
        record(body("second"))
        with psycopg.connect(ledger) as newcomer:

            def go_on(_):
                newcomer.execute("UPDATE task SET status = 'failed' WHERE id = 'third'")
                other.commit()

            monkeypatch.setattr(outbox.time, "sleep", go_on)
            assert [event.task_id for event in outbox.events_after(0, 10)] == ["first", "second"]
            newcomer.commit()
        assert [event.task_id for event in read_all()] == ["first", "second", "third"]

    def test_it_does_not_wait_for_one_that_writes_no_event(self, other, monkeypatch):
        register("t1", "t2")
        other.execute("UPDATE task SET ref = 'x' WHERE id = 't1'")
        record(body("t2"))
        monkeypatch.setattr(outbox.time, "sleep", lambda _: pytest.fail("it waits"))
        assert [event.task_id for event in read_all()] == ["t2"]


def test_a_ledger_from_before_the_events_tells_nothing_of_the_past(empty_url):
    init_database(empty_url)
    old = {"service": "midjourney", "created_at": NOW, "silent_since": NOW}
    disputed = {"callback_status": "failed", "lookup_status": "succeeded", "status": "succeeded"}
    with database.connection_context():
        Runner(database.obj, directory=str(schema._MIGRATIONS)).up("0010_services")
        Task.insert(id="settled", status="failed", settled_at=NOW, settled_by="callback", **old).execute()
        Task.insert(id="expired", status="expired", gave_up_at=NOW, **old).execute()
        Task.insert(id="disputed", **disputed, **old).execute()
        Task.insert(id="open", **old).execute()
    assert migrate()[0] == "0011_events"
    assert list(read_all()) == []
    record(failure_body("disputed"), NOW)
    record(body("expired"), NOW)
    record(body("open"), NOW)
    assert [(event.task_id, event.type, event.sequence) for event in read_all()] == [
        ("expired", "task.succeeded", 2),
        ("open", "task.succeeded", 1),
    ]
    database.obj.close_all()
