"""Every event that is told makes one forward for each endpoint, whatever way it came and whoever deals it."""

import json
import threading
import zlib
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peewee import fn

from receiver.clock import utcnow
from receiver.ledger import dealing, endpoints, store
from receiver.ledger.dealing import READER, deal
from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.models import Event, Forward, Reader, Task, database
from receiver.ledger.readers import go_on, place_of
from receiver.ledger.registration import Registration
from receiver.upstream.results import FINAL
from tests.factories import TIMETABLE, body, finished_item, look_up, record, register
from tests.forwarding import APP, make_apps
from tests.processes import wait_until
from tests.properties import on_a_ledger
from tests.receiver.ledger.test_order import callback, rolled_back
from tests.receiver.ledger.test_outbox import WAYS

URL = "https://app.example.com/own"
FORGED = {"image_url": "https://evil.example/x.png", "trace_id": "forged-trace"}
FORGERIES = [
    [callback(body, ref="forged-ref", **FORGED)],
    [callback(body, **FORGED, progress=100)],
    [lambda task_id: register(task_id, callback_url=URL)],
]
DEAL, CONFIRMED, SETTLED = "deal", "confirmed", "settled"


def deal_all(when="confirmed"):
    while deal(utcnow(), when):
        pass


def bodies_of(task_id):
    """Return the forwards of a task by endpoint, each as type, sequence and parsed body."""
    told = defaultdict(list)
    for forward in Forward.select().where(Forward.task_id == task_id).order_by(Forward.id):
        parsed = json.loads(zlib.decompress(forward.body))
        told[forward.endpoint_id].append((forward.type, forward.sequence, parsed))
    return told


@pytest.mark.usefixtures("ledger")
class TestWhatIsTold:
    @on_a_ledger
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.sampled_from(WAYS + FORGERIES), st.sampled_from(("t1", "t2"))),
                st.just((DEAL, "")),
            ),
            max_size=8,
        )
    )
    def test_with_confirmed_whatever_the_way_upstreams_word_is_told_in_order_and_nothing_else(self, ways):
        with rolled_back():
            (app,) = make_apps(APP, now=utcnow())
            for way, task_id in [*ways, (DEAL, "")]:
                for step in (lambda _: deal_all(),) if way == DEAL else way:
                    step(task_id)
            for task in Task.select():
                told = bodies_of(task.id)
                self._require_told(task, told[app.id])
                for endpoint, posted in told.items():
                    sequences = [sequence for _, sequence, _ in posted]
                    assert sequences == sorted(set(sequences))
                    if endpoint != app.id:
                        assert {type_ for type_, *_ in posted} <= {"task.succeeded", "task.failed"}
                        assert "evil" not in json.dumps([one for *_, one in posted])
                if task.callback_url and task.lookup_status in FINAL:
                    assert len(told) == 2
            assert place_of(READER) == Event.select(fn.COALESCE(fn.MAX(Event.id), 0)).scalar()

    def _require_told(self, task, told):
        assert "evil" not in json.dumps(told)
        assert "forged" not in json.dumps(told)
        changes = list(Event.select().where(Event.task_id == task.id).order_by(Event.id))
        due = [event.type for event in changes if event.confirmed is not None or event.status not in FINAL]
        due = [f"task.{task.status}" if type_ == "task.confirmed" else type_ for type_ in due]
        assert set(due) <= {type_ for type_, *_ in told}
        if task.lookup_status in FINAL:
            results = [one["data"]["task"] for type_, _, one in told if type_ == f"task.{task.status}"]
            assert results, changes
            assert results[-1]["status"] == task.lookup_status
        for type_, _, one in told:
            shown = one["data"]["task"]
            if shown["status"] in FINAL:
                assert shown["confirmed"] is not None, type_

    @on_a_ledger
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.sampled_from(WAYS), st.just("t1")),
                st.tuples(st.sampled_from((CONFIRMED, SETTLED)), st.just("")),
            ),
            max_size=8,
        )
    )
    def test_to_switch_between_confirmed_and_settled_loses_nothing(self, ways):
        with rolled_back():
            (app,) = make_apps(APP, now=utcnow())
            for way, task_id in [*ways, (CONFIRMED, "")]:
                for step in (lambda _, when=way: deal_all(when),) if isinstance(way, str) else way:
                    step(task_id)
            told = [(type_, sequence) for type_, sequence, _ in bodies_of("t1")[app.id]]
            for event in Event.select().where(Event.task_id == "t1"):
                if event.type == "task.confirmed":
                    assert (f"task.{event.status}", event.sequence) in told
                elif event.confirmed is not None or event.status not in FINAL:
                    assert (event.type, event.sequence) in told

    def test_a_forged_image_is_not_told_where_upstream_has_another(self):
        make_apps(APP, now=utcnow())
        record(body(image_url="https://evil.example/x.png", progress=100), confirm=True)
        deal_all()
        assert Forward.select().count() == 0
        look_up([finished_item()])
        deal_all()
        assert b"evil" not in zlib.decompress(Forward.get().body)

    def test_what_cannot_be_told_keeps_no_other_event_back(self, monkeypatch, caplog):
        make_apps(APP, now=utcnow())
        tell = dealing.body_for_app

        def fail(event, task, when):
            if task.id == "bad":
                raise RecursionError
            return tell(event, task, when)

        monkeypatch.setattr(dealing, "body_for_app", fail)
        for task_id in ("bad", "good"):
            record(body(task_id))
        deal_all("settled")
        bad, good = Forward.select().order_by(Forward.id)
        assert (bad.task_id, bad.status, bad.cause) == ("bad", "failed", "its body cannot be made")
        assert json.loads(zlib.decompress(bad.body))["data"]["task"] == {"id": "bad"}
        assert (good.task_id, good.status) == ("good", "pending")
        assert "of task bad cannot be made" in caplog.text

    def test_a_callback_url_that_is_none_makes_a_forward_that_fails_by_itself(self):
        register("t1", callback_url="http://[bad:port")
        record(body(), confirm=True)
        look_up([finished_item()])
        deal_all()
        assert (Forward.get().url, Forward.get().endpoint.host) == ("http://[bad:port", ":0")


@pytest.mark.usefixtures("ledger")
class TestDealers:
    @pytest.mark.direct
    def test_several_at_once_deal_each_event_once_and_in_order(self):
        make_apps(APP, "https://other.example.com", now=utcnow())
        for n in range(150):
            record(body(f"t{n}"))
        problems = []

        def work():
            try:
                deal_all("settled")
            except BaseException as problem:
                problems.append(problem)
                raise
            finally:
                database.close()

        dealers = [threading.Thread(target=work) for _ in range(3)]
        for dealer in dealers:
            dealer.start()
        for dealer in dealers:
            dealer.join()
        deal_all("settled")
        assert not problems
        dealt = Counter((forward.endpoint_id, forward.task_id) for forward in Forward.select())
        assert (len(dealt), set(dealt.values())) == (300, {1})
        order = [forward.event for forward in Forward.select().order_by(Forward.id)]
        assert order == sorted(order)

    def test_one_that_dies_before_any_statement_loses_nothing_and_deals_nothing_twice(self, monkeypatch):
        make_apps(APP, now=utcnow())
        register("t1", callback_url=URL)
        record(body(), confirm=True)
        look_up([finished_item()])
        execute = type(database.obj).execute_sql
        for death in range(100):
            left = [death]

            def die(self, sql, *args, left=left, **kwargs):
                left[0] -= 1
                if left[0] < 0:
                    raise SystemExit
                return execute(self, sql, *args, **kwargs)

            with mock.patch.object(type(database.obj), "execute_sql", die):
                try:
                    deal(utcnow(), "confirmed")
                    survived = True
                except SystemExit:
                    survived = False
            database.close()
            if survived:
                break
            is_dealt = Forward.select().count() > 0
            assert is_dealt == (place_of(READER) > 0)
        assert survived
        assert death > 4
        deal_all()
        assert Forward.select().count() == 2

    def test_one_that_was_overtaken_deals_nothing(self, monkeypatch):
        make_apps(APP, now=utcnow())
        record(body())
        read = dealing.events_after

        def overtaken(cursor, limit):
            events = read(cursor, limit)
            monkeypatch.setattr(dealing, "events_after", read)
            deal(utcnow(), "settled")
            return events

        monkeypatch.setattr(dealing, "events_after", overtaken)
        deal(utcnow(), "settled")
        assert Forward.select().count() == 1
        assert Reader.get(Reader.name == READER).event == Event.get().id


@pytest.mark.usefixtures("ledger")
def test_a_result_from_before_its_url_is_dealt_once_whoever_comes_first():
    record(body(), confirm=True)
    look_up([finished_item()])
    register("t1", callback_url=URL)  # before the event was dealt
    deal_all()
    register("t1", callback_url=URL)
    deal_all()
    assert [forward.url for forward in Forward.select()] == [URL]
    assert Forward.get().happened_at <= utcnow() + timedelta(seconds=1)


@pytest.mark.usefixtures("ledger")
@pytest.mark.direct
def test_a_registration_and_a_dealer_that_make_the_same_endpoints_do_not_deadlock():
    if not on_postgresql():
        return  # SQLite has one writer
    for task_id in ("t1", "t2"):
        record(body(task_id), confirm=True)
        look_up([finished_item(task_id)])
    first, second = "https://first.example.com", "https://second.example.com"
    late = [Registration("t1", callback_url=second), Registration("t2", callback_url=first)]
    with ThreadPoolExecutor(1) as threads:
        with writing():
            assert go_on(READER, 0, 1)
            endpoints.server_of(first, utcnow())
            registering = threads.submit(store.register, late, utcnow(), timetable=TIMETABLE)
            wait_until(lambda: _count_waiting() == 1)
            endpoints.server_of(second, utcnow())
        registering.result(20)
    assert Forward.select().count() == 2


def _count_waiting():
    return database.execute_sql("SELECT COUNT(*) FROM pg_locks WHERE NOT granted").fetchone()[0]
