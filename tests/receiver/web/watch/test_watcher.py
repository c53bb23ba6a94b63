"""The watcher: what ALERT_URL is told, over real sockets, and that it disturbs nothing."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.forward.sender import Sender
from receiver.ledger import growth, pauses, refusals
from receiver.ledger.models import Counter, Incident, ReconcileRun, database
from receiver.ledger.refusals import Refused
from receiver.web.disk_room import Room
from receiver.web.intake import Intake
from receiver.web.watch.watcher import Watcher
from tests.factories import register
from tests.processes import wait_until
from tests.sink import Sink, reply

NOW = utcnow()
MINUTE = timedelta(minutes=1)


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture
def sender() -> Iterator[Sender]:
    with closing(Sender(allow_private_urls=True, connections=1)) as sender:
        yield sender


@pytest.fixture
def make_watcher(ledger, make_settings, sender, sink):
    def make(url: str = "") -> Watcher:
        settings = make_settings(ALERT_URL=url or f"{sink.url}/alert", PUBLIC_URL="https://b.example")
        return Watcher(settings, Intake(settings), sender)

    return make


def told(sink: Sink) -> list[tuple[str, str]]:
    bodies = [json.loads(one.body) for one in sink.received]
    return [(body["code"], body["state"]) for body in bodies]


def at_work(now):
    ReconcileRun.create(reconciler="test:1", started_at=now, finished_at=now)


def end_outage(watcher, path, *moments):
    """Let the database at the path be there again, and look at these moments."""
    database.obj.init(path)
    wait_until(lambda: watcher._intake.writes().database is None, seconds=60)
    for moment in moments:
        at_work(moment)
        watcher.look(moment)


def test_a_refused_token_is_told_once_by_two_processes_and_again_when_it_is_over(make_watcher, sink):
    first, second = make_watcher(), make_watcher()
    at_work(NOW)
    pauses.pause_account("upstream answered 401", NOW)
    for moment in (NOW, NOW + MINUTE / 2, NOW + MINUTE):
        first.look(moment)
        second.look(moment)
    assert told(sink) == [("upstream_refuses", "began")]
    body = json.loads(sink.received[0].body)
    assert "401" in body["message"]
    assert "ACEDATACLOUD_API_TOKEN" in body["message"]
    assert body["url"] == "https://b.example"
    pauses.resume(NOW + MINUTE)
    at_work(NOW + 3 * MINUTE)
    for watcher in (second, first):
        watcher.look(NOW + 3 * MINUTE)
    assert told(sink) == [("upstream_refuses", "began"), ("upstream_refuses", "over")]


def test_a_silent_reconciler_is_told(make_watcher, sink):
    register("t1", now=NOW - 20 * MINUTE)
    at_work(NOW - 10 * MINUTE)
    watcher = make_watcher()
    watcher.look(NOW)
    assert told(sink) == []
    watcher.look(NOW + 2 * MINUTE)
    assert told(sink) == [("reconciler_silent", "began")]


def test_a_post_that_fails_is_tried_again(make_watcher, sink):
    sink.then(reply(500))
    watcher = make_watcher()
    at_work(NOW)
    pauses.pause_account("upstream answered 401", NOW)
    for moment in (NOW, NOW + MINUTE / 2, NOW + MINUTE, NOW + 2 * MINUTE):
        watcher.look(moment)
    assert told(sink) == [("upstream_refuses", "began")] * 2
    assert Incident.get(Incident.code == "upstream_refuses").told_at == NOW + 2 * MINUTE


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_database_that_is_away_is_told_and_its_return_too(make_watcher, sink, tmp_path):
    watcher, path = make_watcher(), database.obj.database
    database.obj.close_all() if hasattr(database.obj, "close_all") else database.obj.close()
    database.obj.init(str(tmp_path / "nowhere" / "x"))
    for moment in (NOW, NOW + 2 * MINUTE, NOW + 3 * MINUTE):
        watcher.look(moment)
    assert told(sink) == [("database_down", "began")]
    end_outage(watcher, path, NOW + 4 * MINUTE, NOW + 5 * MINUTE)
    assert told(sink) == [("database_down", "began"), ("database_down", "over")]


def test_a_schema_that_is_behind_is_told(make_watcher, sink):
    database.execute_sql("DELETE FROM schema_migration")
    watcher = make_watcher()
    for moment in (NOW, NOW + 2 * MINUTE):
        watcher.look(moment)
    assert told(sink) == [("schema_behind", "began")]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_of_the_workers_of_a_machine_one_looks_until_it_ends(make_watcher):
    first, second = make_watcher(), make_watcher()
    assert first._is_mine()
    assert not second._is_mine()
    assert first._is_mine()
    os.close(first._lock)  # as when its process ends
    assert second._is_mine()
    os.close(second._lock)


def test_it_keeps_the_size_of_each_hour_without_an_address_to_tell(make_settings, ledger, sender, sink):
    settings = make_settings()
    Watcher(settings, Intake(settings), sender).look(NOW)
    assert Counter.select().where(Counter.name == growth.NAME).count() == 1
    assert Incident.select().count() == 0
    assert sink.received == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_trouble_that_lasts_longer_than_the_outage_is_told_once_and_not_told_to_be_over(
    make_watcher, sink, tmp_path, monkeypatch
):
    watcher, path = make_watcher(), database.obj.database
    monkeypatch.setattr(Room, "is_nearly_full", True)
    at_work(NOW)
    for moment in (NOW, NOW + 3 * MINUTE):
        watcher.look(moment)
    assert told(sink) == [("disk_nearly_full", "began")]
    database.obj.close()
    database.obj.init(str(tmp_path / "nowhere" / "x"))
    for moment in (NOW + 4 * MINUTE, NOW + 7 * MINUTE):
        watcher.look(moment)
    end_outage(watcher, path, NOW + 8 * MINUTE, NOW + 10 * MINUTE)
    assert [one for one in told(sink) if one[0] == "disk_nearly_full"] == [("disk_nearly_full", "began")]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_trouble_that_begins_in_an_outage_and_outlasts_it_is_told_once_and_once_that_it_is_over(
    make_watcher, sink, tmp_path, monkeypatch
):
    watcher, path = make_watcher(), database.obj.database
    monkeypatch.setattr(Room, "is_nearly_full", True)
    database.obj.close()
    database.obj.init(str(tmp_path / "nowhere" / "x"))
    for moment in (NOW, NOW + 3 * MINUTE):
        watcher.look(moment)
    end_outage(watcher, path, NOW + 4 * MINUTE, NOW + 7 * MINUTE)
    assert [one for one in told(sink) if one[0] == "disk_nearly_full"] == [("disk_nearly_full", "began")]
    monkeypatch.setattr(Room, "is_nearly_full", False)
    for moment in (NOW + 9 * MINUTE, NOW + 11 * MINUTE):
        at_work(moment)
        watcher.look(moment)
    assert [one for one in told(sink) if one[0] == "disk_nearly_full"] == [
        ("disk_nearly_full", "began"),
        ("disk_nearly_full", "over"),
    ]


def test_each_loss_is_told_however_short_the_time_between(make_watcher, sink):
    watcher = make_watcher()
    for at in (NOW - 180 * MINUTE, NOW - 120 * MINUTE):
        at_work(at)
        refusals.add([Refused(refusals.NOT_KEPT, 1, at, at, None, "disk full")])
        for moment in (at, at + MINUTE, at + 20 * MINUTE, at + 22 * MINUTE):
            at_work(moment)
            watcher.look(moment)
    assert [one for one in told(sink) if one[0] == "callbacks_lost"] == [
        ("callbacks_lost", "began"),
        ("callbacks_lost", "over"),
    ] * 2
