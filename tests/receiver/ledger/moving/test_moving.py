"""Exports and imports: from SQLite to each database and back, equal row by row."""

import io
import json
import threading
import tracemalloc
from datetime import timedelta

import pytest
from peewee import fn

from receiver.clock import utcnow
from receiver.ledger.dealing import deal
from receiver.ledger.engine.bulk import last_number
from receiver.ledger.engine.db import init_database
from receiver.ledger.models import (
    DISPUTED,
    MODELS,
    Attempt,
    Counter,
    Delivery,
    Discovery,
    Event,
    Incident,
    LearnedPace,
    Pause,
    ReceiverReturn,
    Refusal,
    Resending,
    Submission,
    Tally,
    Task,
    database,
)
from receiver.ledger.moving import importing
from receiver.ledger.moving.exporting import export_ledger
from receiver.ledger.moving.importing import NotEmpty, import_ledger
from receiver.ledger.moving.lines import BadFile
from receiver.ledger.reading import tally
from tests.factories import (
    body,
    create_endpoint,
    create_forward,
    failed_item,
    failure_body,
    finished_item,
    look_up,
    prune,
    record,
    register,
)

NOW = utcnow()
HOUR = timedelta(hours=1)
WHOLE_SECOND = NOW.replace(microsecond=0)


def fill() -> None:
    """Write to every table, with what is hard to move: all bytes, odd characters, times with and without fractions."""
    register("t1", "t2", "quiet", now=NOW - HOUR, ref="order \u2028 \x1f \U0001f600")
    record(bytes(range(256)), NOW - HOUR)
    record(body("t1", prompt='ü\\"\n'), NOW - HOUR)
    record(failure_body("t2"), WHOLE_SECOND, confirm=True)
    look_up([finished_item("t2"), failed_item("quiet")], NOW + 2 * HOUR)
    endpoint = create_endpoint()
    forward = create_forward(endpoint=endpoint, body=bytes(range(256)), held_before=0.1 + 0.2)
    known = {"began_at": NOW, "took": 1e-9, "url": "https://app.example", "headers": "{}", "kind": "answered"}
    Attempt.create(forward=forward, answer=b"\0\xff", status=200, **known)
    Resending.create(created_at=NOW, wanted="{}", rate=0.5, total=1, up_to=2**60, next_at=NOW)
    Refusal.create(kind="wrong_token", hour="2026-01-31 12", requests=3, first_at=NOW, last_at=WHOLE_SECOND)
    Pause.create(reason="429", account=False, started_at=NOW, ended_at=NOW)
    Discovery.create(service="midjourney", covered_to=NOW)
    LearnedPace.create(service="midjourney", type="", mode="", weights="[1]", learned_at=NOW)
    ReceiverReturn.create(times=2, followed=1)
    sent = {"sent_at": NOW, "leased_until": NOW}
    Submission.create(api_key="a", digest=b"\1", service="midjourney", type="imagine", trace_id="x", **sent)
    Incident.create(code="disputes", message="m", began_at=NOW, seen_at=NOW)
    record(body("gone"), NOW)
    # The last event's number is never given again, although the event has been deleted.
    Event.delete().where(Event.task_id == "gone").execute()


def exported() -> bytes:
    file = io.BytesIO()
    export_ledger(file, NOW, lambda *_: None)
    return file.getvalue()


def imported(file: bytes):
    return import_ledger(io.BytesIO(file), lambda *_: None)


def all_rows() -> dict[str, list[dict[str, object]]]:
    def plain(row):
        return {name: bytes(v) if isinstance(v, memoryview) else v for name, v in row.items()}

    def number(row):
        return str(row.get("id", row.get("name")))

    return {
        model.__name__: sorted(map(plain, model.select().dicts().iterator()), key=number) for model in MODELS
    }


def bind(url: str) -> None:
    database.obj.close_all()
    init_database(url)


@pytest.fixture
def first_url(tmp_path, sqlite_template) -> str:
    path = tmp_path / "first.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


@pytest.fixture
def filled(ledger, first_url) -> bytes:
    """The export of a rich ledger on SQLite. The process is bound to the test's empty ledger."""
    bind(first_url)
    fill()
    file = exported()
    bind(ledger)
    return file


def test_each_row_of_each_table_is_the_same_on_another_database_and_back(
    filled, ledger, first_url, tmp_path, sqlite_template
):
    bind(first_url)
    rows = all_rows()
    assert [name for name, some in rows.items() if not some] == []
    bind(ledger)
    told = imported(filled)
    assert told.rows == {model._meta.table_name: len(rows[model.__name__]) for model in MODELS}
    assert all_rows() == rows
    there = exported()
    (tmp_path / "second.db").write_bytes(sqlite_template.read_bytes())
    bind(f"sqlite:///{tmp_path}/second.db")
    imported(there)
    assert all_rows() == rows
    # To the byte: SQLite keeps times as text.
    assert exported() == filled


def test_the_service_goes_on_with_what_was_imported(filled):
    last = {}
    for line in filled.splitlines()[1:-1]:
        content = json.loads(line)
        last[content["table"]] = content["row"].get("id")
    imported(filled)
    tasks, gone = Task.select().count(), Event.select(fn.MAX(Event.id)).scalar() + 1
    register("new", now=NOW)
    record(body("quiet"), NOW)
    record(body("new"), NOW)
    assert Delivery.select(fn.MAX(Delivery.id)).scalar() == last["delivery"] + 2
    assert [event.task_id for event in Event.select().where(Event.id > gone)] == ["quiet", "new"]
    look_up([failed_item("t1")], NOW + 9 * HOUR)
    assert tally.count_outcomes().tasks == Task.select().count() == tasks + 1
    assert tally.count_outcomes().disputed == Task.select().where(DISPUTED).count()
    create_forward()
    assert Counter.select(fn.SUM(Counter.value)).where(Counter.name == "forwards").scalar() == 2
    for model in (Submission, Incident, Attempt):
        assert last_number(model) >= last[model._meta.table_name]


def test_numbers_go_on_after_those_of_rows_that_are_all_deleted(ledger, first_url):
    bind(first_url)
    for number in range(3):
        record(body(f"t{number}"), NOW)
    while deal(NOW, "settled"):
        pass
    prune(NOW + HOUR, NOW + HOUR)
    assert (Task.select().count(), Event.select().count()) == (0, 0)
    file = exported()
    bind(ledger)
    imported(file)
    record(body("new"), NOW)
    # Readers go on behind the last event that they have read.
    assert [event.id for event in Event.select()] == [4]
    assert deal(NOW, "settled") == 1


class Interrupted(io.BytesIO):
    """A file that does something at its first line of deliveries."""

    def __init__(self, act) -> None:
        super().__init__()
        self._act = act

    def write(self, line) -> int:
        if self._act and b'"delivery"' in line:
            thread = threading.Thread(target=self._act)
            self._act = None
            thread.start()
            thread.join()
        return super().write(line)


def test_an_export_is_the_ledger_at_one_moment_while_callbacks_come(ledger):
    fill()
    before = exported()

    def come() -> None:
        for number in range(50):
            record(body(f"late{number}"), NOW)

    file = Interrupted(come)
    export_ledger(file, NOW, lambda *_: None)
    assert file.getvalue() == before
    assert Task.select().where(Task.id.startswith("late")).count() == 50


@pytest.mark.usefixtures("ledger")
def test_an_import_that_fails_leaves_nothing_behind(filled):
    lines = filled.splitlines(keepends=True)
    last_row = lines[-2]
    for file, complaint in [
        (b"".join(lines[:-1]), "its last line is missing"),
        (
            b"".join([*lines[:-2], last_row.replace(b'"value"', b'"valve"'), lines[-1]]),
            f"Line {len(lines) - 1} is not",
        ),
    ]:
        with pytest.raises(BadFile, match=complaint):
            imported(file)
        assert not any(model.select().exists() for model in (Task, Delivery, Event, Tally))
    # The triggers act again.
    record(body("t1"), NOW)
    assert (tally.count_outcomes().tasks, Event.select().count()) == (1, 1)


def test_only_an_empty_ledger_is_filled(filled):
    ReceiverReturn.create(times=7, followed=0)  # a web process has run
    imported(filled)
    assert ReceiverReturn.get().times == 2
    with pytest.raises(NotEmpty):
        imported(filled)


@pytest.mark.usefixtures("ledger")
def test_an_export_of_another_schema_is_refused(filled, monkeypatch):
    monkeypatch.setattr(importing, "applied_migrations", lambda: ["0001_ledger"])
    with pytest.raises(BadFile, match="this database has 0001_ledger"):
        imported(filled)


def test_it_needs_little_memory(ledger, tmp_path, first_url):
    for number in range(20):
        record(body(f"t{number}", text="x" * 10**6), NOW)
    with open(tmp_path / "file", "wb") as file:
        assert _peak(lambda: export_ledger(file, NOW, lambda *_: None)) < 10e6
    bind(first_url)
    with open(tmp_path / "file", "rb") as file:
        assert _peak(lambda: import_ledger(file, lambda *_: None)) < 10e6
    bind(ledger)


def _peak(act) -> int:
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
