"""Callbacks that are not taken in: counted, told, and never a row a request."""

import re
import threading
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from peewee import OperationalError

from receiver.clock import utcnow
from receiver.ledger import refusals
from receiver.ledger.admission import BURST_MINUTES, UnknownBudget
from receiver.ledger.engine.db import init_database, writing
from receiver.ledger.engine.errors import describe
from receiver.ledger.models import Delivery, Refusal, Task, database
from receiver.ledger.refusals import NO_ROUTE, NOT_KEPT, SHORTENED, UNKNOWN_REFUSED, WRONG_TOKEN, Refused
from receiver.ledger.store import Callback
from receiver.web import refused as refused_module
from receiver.web import writes as writes_module
from receiver.web.intake import record
from receiver.web.refused import Board, RefusedRequests
from receiver.web.writes import Writes
from tests.conftest import CALLBACK_TOKEN
from tests.factories import TIMETABLE, body, register
from tests.html import words

STALE = "stale-token-of-before-the-rotation"


@pytest.fixture
def intake(client):
    return client.application.extensions["backstop_intake"]


def post(client, times=1, token=STALE, ref=""):
    for _ in range(times):
        client.post(f"/callbacks/{token}{ref}", data=body())


class TestWrongToken:
    def test_it_is_counted_and_told_where_people_and_machines_look(self, client, auth, caplog):
        post(client, 5)
        page = words(client.get("/", headers=auth).text)
        assert "5 requests of the last 24 h" in page
        assert "the last just now from 127.0.0.1, came with a callback token that is not ours." in page
        told = client.get("/readyz").json["refused"][WRONG_TOKEN]
        assert told["requests"] == 5
        assert caplog.text.count("had a callback token that is not ours; 1, the last from 127.0.0.1") == 1
        assert STALE not in caplog.text + page + str(told)

    def test_a_stranger_fills_nothing_by_it(self, client, intake):
        for n in range(200):
            post(client, token=f"guess-{n:020}", ref=f"/ref-{n}")
            if n % 50 == 0:
                intake.refused.record()
        intake.refused.record()
        rows = list(Refusal.select().where(Refusal.kind == WRONG_TOKEN))
        assert sum(row.requests for row in rows) == 200
        assert len(rows) <= 2  # an hour may have ended meanwhile
        assert Delivery.select().count() == 0
        assert intake.refused.unrecorded() == {}

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/callback/x"),
            ("POST", "/callbacks"),
            ("GET", f"/callbacks/{STALE}"),
            ("POST", f"/Callbacks/{CALLBACK_TOKEN}"),
        ],
    )
    def test_requests_that_miss_the_route_are_told_too(self, client, auth, method, path):
        client.open(path, method=method)
        assert "that is not a callback URL" in words(client.get("/", headers=auth).text)
        assert client.get("/readyz").json["refused"][NO_ROUTE]["requests"] == 1

    def test_a_page_of_ours_that_is_asked_for_in_the_wrong_way_is_no_callback(self, client):
        assert client.get("/callback-url").status_code == 405
        assert client.get("/readyz").json["refused"] == {}

    def test_the_log_tells_of_each_once_a_minute_at_most_and_leaves_none_out(
        self, client, intake, caplog, monkeypatch
    ):
        post(client, 5)
        assert caplog.text.count("is not ours; ") == 1
        monkeypatch.setattr(refused_module, "_LOG_EVERY_SECONDS", 0.0)  # a minute later
        intake.refused.log_rest()
        intake.refused.log_rest()
        assert re.findall(r"is not ours; (\d+), the last", caplog.text) == ["1", "4"]

    def test_addresses_are_for_whoever_has_the_key(self, client, auth):
        post(client)
        assert "remote_addr" not in client.get("/readyz").json["refused"][WRONG_TOKEN]
        told = client.get("/readyz", headers=auth).json["refused"][WRONG_TOKEN]
        assert told["remote_addr"] == "127.0.0.1"


class TestShortened:
    def test_it_is_counted_and_told_where_people_and_machines_look(self, client, auth, intake):
        intake.unknown = UnknownBudget.a_minute(rows=10, size=0)
        large = body("t1", prompt="x" * 5000)
        answer = client.post(f"/callbacks/{CALLBACK_TOKEN}", data=large)
        assert (answer.status_code, answer.json["error"]["code"]) == (202, "shortened")
        page = words(client.get("/", headers=auth).text)
        assert "of 1 large callback only the beginning was kept, just now from 127.0.0.1." in page
        assert "Look-ups ask for their results." in page
        assert client.get("/readyz").json["refused"][SHORTENED]["requests"] == 1
        assert "its beginning was kept" in words(client.get("/tasks/t1", headers=auth).text)
        delivery = words(client.get(f"/deliveries/{Delivery.get().id}", headers=auth).text)
        assert "Only the first 4,096 bytes were kept" in delivery

    def test_what_waited_in_the_spool_is_kept_whole(self, ledger, make_settings):
        large = body("t1", prompt="x" * 5000)
        callback = Callback(body=large, size=len(large), remote_addr="127.0.0.1")
        record(callback, utcnow(), make_settings(), TIMETABLE, unknown=None)
        assert bytes(Delivery.get().body) == large


class TestUnknown:
    def test_beyond_the_limit_it_is_refused_counted_and_told_and_known_tasks_pass(
        self, make_client, auth, caplog
    ):
        client = make_client(UNKNOWN_CALLBACKS_PER_MINUTE=1)
        url, sent = f"/callbacks/{CALLBACK_TOKEN}", BURST_MINUTES + 2
        register("ours")
        answers = [client.post(url, data=body(f"forged-{n}")) for n in range(sent)]
        assert [one.status_code for one in answers] == [200] * BURST_MINUTES + [429] * 2
        assert (answers[-1].headers["Retry-After"], answers[-1].json["error"]["code"]) == (
            "60",
            "unknown_refused",
        )
        assert client.post(url, data=body("ours")).status_code == 200
        page = words(client.get("/", headers=auth).text)
        assert "2 callbacks were not kept, the last just now from 127.0.0.1." in page
        report = client.get("/readyz").json
        assert report["refused"][UNKNOWN_REFUSED]["requests"] == 2
        assert "unknown_refused" in [one["code"] for one in report["troubles"]]
        assert caplog.text.count("came too fast and were not kept") == 1
        assert Delivery.select().count() == BURST_MINUTES + 1


class TestTokens:
    def test_each_delivery_tells_its_token_and_the_page_when_an_old_one_was_last_used(
        self, make_client, auth
    ):
        client = make_client(CALLBACK_TOKEN=f"{CALLBACK_TOKEN},{STALE},third-token-of-the-tests")
        post(client, token=CALLBACK_TOKEN)
        post(client, token=STALE)
        assert [row.token for row in Delivery.select().order_by(Delivery.id)] == [0, 1]
        newest = client.get("/api/tasks/t1", headers=auth).json["deliveries"][0]
        assert newest["token"] == 2
        page = words(client.get("/", headers=auth).text)
        assert "Callbacks with token 2 of 3 are taken too. It was last used just now." in page
        assert "Callbacks with token 3 of 3 are taken too. No stored delivery used it" in page


class TestNotKept:
    @pytest.fixture(autouse=True)
    def _always_tried(self, monkeypatch):
        monkeypatch.setattr(writes_module, "TRY_EVERY_SECONDS", 0.0)

    @pytest.fixture
    def full(self, monkeypatch):
        """Makes database and spool refuse all writes, as on a full disk, and ends that again."""

        def fail(*args, **kwargs):
            raise OSError(28, "No space left on device")

        def begin(spool=True):
            monkeypatch.setattr("receiver.ledger.store.record", fail)
            monkeypatch.setattr("receiver.ledger.refusals.try_a_write", fail)
            monkeypatch.setattr("receiver.ledger.refusals.add", fail)
            if spool:
                monkeypatch.setattr("receiver.spool.spool.Spool.append", fail)
                monkeypatch.setattr("receiver.spool.spool.Spool.try_a_write", fail)

        return begin, monkeypatch.undo

    def test_a_full_disk_is_the_first_sentence_and_not_ready(self, client, auth, full):
        begin, _ = full
        begin()
        assert client.post(f"/callbacks/{CALLBACK_TOKEN}", data=body()).status_code == 503
        report = client.get("/readyz")
        assert (report.status_code, report.json["ready"], report.json["callbacks"]) == (503, False, "refused")
        assert report.json["refused"][NOT_KEPT]["requests"] == 1
        assert "No space" not in report.text
        assert "No space" in client.get("/readyz", headers=auth).text
        page = words(client.get("/", headers=auth).text)
        assert "Trouble: callbacks have been refused and lost since" in page
        assert page.index("callbacks have been refused and lost") < page.index(
            "1 callback was refused and lost"
        )
        assert "No space left on device" in page
        assert "still received" not in page  # as is said where only the reconciler is missing

    def test_what_was_refused_stays_told_when_the_disk_has_room_again(self, client, auth, full, intake):
        begin, end = full
        begin()
        for _ in range(3):
            client.post(f"/callbacks/{CALLBACK_TOKEN}", data=body())
        with pytest.raises(OSError, match="No space"):
            intake.refused.record()
        end()
        intake.refused.record()
        assert Refusal.get(Refusal.kind == NOT_KEPT).requests == 3
        assert client.get("/readyz").json["callbacks"] == "kept"
        page = words(client.get("/", headers=auth).text)
        assert "3 callbacks were refused and lost" in page
        assert "Look-ups still find the results of tasks that were registered or discovered." in page

    def test_a_database_that_takes_no_writes_while_the_spool_does(self, client, auth, full):
        begin, _ = full
        begin(spool=False)
        report = client.get("/readyz")
        assert (report.status_code, report.json["callbacks"]) == (503, "spooled")
        assert "Trouble: the database has accepted no writes since" in words(
            client.get("/", headers=auth).text
        )

    def test_a_callback_that_was_lost_since_the_last_trial_counts_more(self, client, auth, full, monkeypatch):
        begin, _ = full
        monkeypatch.setattr(writes_module, "TRY_EVERY_SECONDS", 1000.0)
        assert client.get("/readyz").json["callbacks"] == "kept"
        begin()
        assert client.post(f"/callbacks/{CALLBACK_TOKEN}", data=body()).status_code == 503
        report = client.get("/readyz")
        assert (report.status_code, report.json["callbacks"]) == (503, "refused")
        assert report.json["cannot_write"]["since"] == report.json["refused"][NOT_KEPT]["first_at"]
        page = words(client.get("/", headers=auth).text)
        assert "Trouble: callbacks have been refused and lost since" in page

    def test_a_spool_alone_that_takes_nothing_is_told_while_it_is_not_needed(self, client, auth, monkeypatch):
        def fail(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("receiver.spool.spool.Spool.try_a_write", fail)
        report = client.get("/readyz", headers=auth)
        assert (report.status_code, report.json["callbacks"]) == (200, "kept")
        assert "No space" in report.json["cannot_write"]["spool"]
        assert "cannot_write" in client.get("/readyz").json
        page = words(client.get("/", headers=auth).text)
        assert "the spool does not work: “[Errno 28] No space left on device”." in page

    def test_it_is_told_soon_that_a_database_hangs(self, client, monkeypatch):
        end = threading.Event()
        for where in (
            "receiver.ledger.refusals.try_a_write",
            "receiver.web.watch.reading.pending_migrations",
        ):
            monkeypatch.setattr(where, lambda *_: end.wait(60))
        monkeypatch.setattr(writes_module, "_WITHIN_SECONDS", 0.1)
        monkeypatch.setattr("receiver.web.watch.readiness._READ_WITHIN_SECONDS", 0.1)
        try:
            report = client.get("/readyz")
            assert not end.is_set()
            assert (report.status_code, report.json["callbacks"], report.json["database"]) == (
                503,
                "spooled",
                "unreachable",
            )
        finally:
            end.set()

    def test_a_database_that_hangs_only_when_it_is_read_is_waited_for_no_longer(self, client, monkeypatch):
        end = threading.Event()
        monkeypatch.setattr("receiver.web.watch.reading.pending_migrations", lambda: end.wait(60))
        monkeypatch.setattr("receiver.web.watch.readiness._READ_WITHIN_SECONDS", 0.1)
        try:
            report = client.get("/readyz")
            assert (report.status_code, report.json["database"]) == (503, "unreachable")
            assert report.json["callbacks"] == "spooled"
        finally:
            end.set()

    def test_a_trial_writes_for_real(self, client):
        assert client.get("/readyz").json["callbacks"] == "kept"
        assert Refusal.get(Refusal.kind == "tried").last_at >= utcnow() - timedelta(minutes=1)


def test_callbacks_are_refused_since_neither_takes_them_and_not_since_the_first_of_the_two_failed():
    at = [datetime(2026, 1, 31, 12, minute) for minute in range(6)]
    writes = Writes("full", "full", since=at[0], spool_since=at[3], tried_at=at[5])
    assert writes.corrected(None, None).refused_since == at[3]
    waiting = Refused(NOT_KEPT, 2, at[2], at[4])
    assert writes.corrected(waiting, waiting).refused_since == at[2]  # another process knew it before
    spooled = Writes("full", since=at[0], tried_at=at[1])
    lost = Refused(NOT_KEPT, 1, at[2], at[2], reason="full; the spool: No space")
    corrected = spooled.corrected(lost, None)
    assert (corrected.callbacks, corrected.spool, corrected.refused_since) == ("refused", "No space", at[2])
    assert replace(spooled, tried_at=at[3]).corrected(lost, None).callbacks == "spooled"


@pytest.mark.usefixtures("ledger")
class TestBoard:
    def test_nobody_waits_for_the_database_to_be_counted(self, monkeypatch):
        writing, end = threading.Event(), threading.Event()
        add = refusals.add

        def hang(counted):
            writing.set()
            end.wait(60)
            add(counted)

        monkeypatch.setattr(refusals, "add", hang)
        process = RefusedRequests()
        process.note(WRONG_TOKEN, None)
        moving = threading.Thread(target=process.record)
        moving.start()
        writing.wait(60)
        noting = threading.Thread(target=process.note, args=(WRONG_TOKEN, None), daemon=True)
        noting.start()
        noting.join(20)
        waited, told = noting.is_alive(), process.unrecorded()
        end.set()
        moving.join(60)
        assert (waited, told[WRONG_TOKEN].requests) == (False, 2)
        assert process.unrecorded()[WRONG_TOKEN].requests == 1
        process.record()
        assert process.unrecorded() == {}
        assert refusals.since(utcnow() - timedelta(hours=2))[WRONG_TOKEN].requests == 2

    def test_each_process_sees_what_all_of_them_had_to_refuse(self):
        board = Board(3)
        one, other = RefusedRequests(board, 0), RefusedRequests(board, 1)
        one.note(NOT_KEPT, "192.0.2.1", "full")
        other.note(NOT_KEPT, "192.0.2.2", "full")
        assert {process.unrecorded()[NOT_KEPT].requests for process in (one, other)} == {2}
        one.record()
        assert other.unrecorded()[NOT_KEPT].requests == 1

    def test_the_next_process_goes_on_with_what_one_left_behind(self):
        board = Board(1)
        RefusedRequests(board, 0).note(WRONG_TOKEN, None)
        board.release(0)  # as when its process ends
        heir = RefusedRequests()
        heir.note(WRONG_TOKEN, None)
        heir.join(board)
        assert heir.unrecorded()[WRONG_TOKEN].requests == 2
        heir.record()
        assert refusals.since(utcnow() - timedelta(hours=2))[WRONG_TOKEN].requests == 2

    def test_what_a_process_left_behind_is_written_down_though_no_other_follows_it(self):
        board = Board(3)
        one, other = RefusedRequests(board, 0), RefusedRequests(board, 1)
        for process in (one, other, other):
            process.note(WRONG_TOKEN, None)
        one.record()
        assert refusals.since(utcnow() - timedelta(hours=2))[WRONG_TOKEN].requests == 1  # the other lives
        board.release(1)
        one.record()
        assert refusals.since(utcnow() - timedelta(hours=2))[WRONG_TOKEN].requests == 3
        assert one.unrecorded() == {}

    def test_a_board_without_a_free_slot_leaves_a_process_its_own_memory(self):
        board = Board(1)
        one, late = RefusedRequests(board, 0), RefusedRequests()
        late.join(board)
        one.note(WRONG_TOKEN, None)
        late.note(NOT_KEPT, None)
        assert (set(one.unrecorded()), set(late.unrecorded())) == ({WRONG_TOKEN}, {NOT_KEPT})

    def test_half_a_slot_is_no_error(self):
        board = Board(1)
        RefusedRequests(board, 0).note(WRONG_TOKEN, "192.0.2.1")
        board._memory[20:4096] = bytes(4076)
        assert board.read(0) == []


class TestSqlite:
    @pytest.fixture(autouse=True)
    def _sqlite(self, tmp_path, sqlite_template):
        path = tmp_path / "backstop.db"
        path.write_bytes(sqlite_template.read_bytes())
        init_database(f"sqlite:///{path}")
        yield
        database.obj.close_all()

    def test_a_full_disk_is_told_and_not_what_rolling_back_came_to(self):
        """SQLite rolls back by itself when the disk is full, and then there is nothing to roll back."""
        with pytest.raises(OperationalError) as caught:
            self.fill()
        assert describe(caught.value) == "database or disk is full"

    def fill(self):
        with writing():
            pages = database.execute_sql("PRAGMA page_count").fetchone()[0]
            database.execute_sql(f"PRAGMA max_page_count = {pages + 1}")
            for n in range(100):
                now = utcnow()
                row = {"kind": "x" * 4000, "hour": str(n), "requests": 1, "first_at": now, "last_at": now}
                Refusal.insert(row).execute()

    def test_a_connection_that_may_only_read_is_given_up_so_that_the_next_may_write(self):
        """As for a file that was opened while its volume was read-only."""
        with database.connection_context():
            database.execute_sql("PRAGMA query_only = 1")
        with pytest.raises(OperationalError, match="readonly"):
            register("t1")
        register("t1")
        assert Task.get().id == "t1"
