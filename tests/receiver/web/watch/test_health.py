import re
from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import pauses, runs
from receiver.ledger.models import database
from tests.factories import create_endpoint, create_forward, register
from tests.html import words
from tests.sources import ROOT


def test_it_has_the_fields_that_the_documents_name(client):
    report = client.get("/readyz").json
    texts = [path.read_text() for path in (ROOT / "docs").rglob("*.md")]
    named = {name for text in texts for name in re.findall(r"`([^`\s]+)` in\s+`/readyz`", text)}
    assert named - set(report) == set()
    assert "spooled" in named


def test_it_is_healthy_without_a_database(client, tmp_path):
    database.obj.init(str(tmp_path / "nowhere" / "x"))
    assert client.get("/healthz").status_code == 200


def test_it_is_ready_with_a_current_schema_and_tells_of_the_last_good_run(client, auth):
    answer = client.get("/readyz", headers=auth)
    assert (answer.status_code, answer.json["ready"]) == (200, True)
    assert (answer.json["database"], answer.json["schema"], answer.json["last_good_run"]) == (
        "ok",
        "current",
        None,
    )
    now = utcnow()
    for age, error in ((60, None), (30, "upstream answered 500")):
        run_id = runs.open_run("test:1", now)
        runs.close_run(run_id, now - timedelta(seconds=age), {"error": error})
    assert 60 <= client.get("/readyz", headers=auth).json["last_good_run"]["age_seconds"] < 90


def test_it_is_not_ready_when_the_schema_is_behind(client, auth):
    database.execute_sql("DELETE FROM schema_migration")
    answer = client.get("/readyz", headers=auth)
    assert (answer.status_code, answer.json["schema"]) == (503, "behind")


def test_it_is_not_ready_when_the_database_is_away(client, tmp_path, auth):
    database.obj.init(str(tmp_path / "nowhere" / "x"))
    answer = client.get("/readyz", headers=auth)
    assert (answer.status_code, answer.json["database"]) == (503, "unreachable")


def test_it_tells_that_upstream_may_not_be_asked_and_is_ready_all_the_same(client, auth):
    pauses.pause_account("upstream answered 403 used_up", utcnow())
    answer = client.get("/readyz", headers=auth)
    assert (answer.status_code, answer.json["paused"]["reason"]) == (200, "upstream answered 403 used_up")


def test_it_tells_which_services_may_not_be_asked_about(client, auth):
    assert client.get("/readyz", headers=auth).json["paused_services"] == {}
    pauses.pause_account("upstream answered 403 disabled", utcnow(), "suno")
    answer = client.get("/readyz", headers=auth).json
    assert (answer["paused"], answer["upstream"]["state"]) == (None, "unknown")
    assert answer["paused_services"]["suno"]["reason"] == "upstream answered 403 disabled"
    assert "reason" not in client.get("/readyz").json["paused_services"]["suno"]


class TestForwards:
    def test_it_is_null_where_there_is_nobody_to_tell(self, client):
        assert client.get("/readyz").json["forwards"] is None

    def test_it_tells_the_share_what_waits_and_what_failed(self, client):
        for status in ("delivered", "delivered", "delivered", "failed", "resent", "pending"):
            create_forward(status=status, created_at=utcnow() - timedelta(minutes=2))
        answer = client.get("/readyz")
        told = answer.json["forwards"]
        assert answer.status_code == 200
        assert (told["delivered"], told["of"], told["waiting"], told["failed"]) == (3, 6, 1, 1)
        assert 120 <= told["oldest_age_seconds"] < 180

    def test_it_tells_who_is_held_and_why_to_those_with_the_key(self, client, auth):
        create_endpoint("https://user:geheim@app.example/", held_at=utcnow(), held_because="gone")
        assert client.get("/readyz").json["forwards"]["held"] == 1
        assert "held_endpoints" not in client.get("/readyz").json["forwards"]
        answer = client.get("/readyz", headers=auth)
        (held,) = answer.json["forwards"]["held_endpoints"]
        assert (held["url"], held["because"]) == ("https://***@app.example/", "gone")


def note_run(ago, **counts):
    now = utcnow()
    run_id = runs.open_run("test:1", now - timedelta(seconds=ago))
    runs.close_run(run_id, now - timedelta(seconds=ago), counts)


def failed(ago):
    note_run(ago, due=1, calls=1, errors=1, error="upstream answered 502: no error that could be read")


class TestUpstream:
    def test_it_is_unknown_before_anything_was_asked(self, client, auth):
        note_run(5)
        report = client.get("/readyz", headers=auth).json
        assert (report["upstream"]["state"], report["upstream"]["answered_age_seconds"]) == ("unknown", None)

    def test_idle_runs_do_not_hide_that_it_fails(self, client, auth):
        note_run(400, due=1, calls=1)
        for ago in (300, 200, 100, 20):
            failed(ago)
            note_run(ago - 10)
        answer = client.get("/readyz", headers=auth)
        upstream, good = answer.json["upstream"], answer.json["last_good_run"]
        assert (answer.status_code, answer.json["ready"], upstream["state"]) == (200, True, "failing")
        assert 400 <= upstream["answered_age_seconds"] < 430
        assert 400 <= good["age_seconds"] < 430
        assert 10 <= answer.json["last_run"]["age_seconds"] < 40
        assert upstream["failing_since"] < answer.json["last_run"]["finished_at"]
        assert "502" in upstream["reason"]

    def test_it_answers_again_and_idle_runs_are_good(self, client, auth):
        for ago in (300, 200, 100):
            failed(ago)
        note_run(50, due=1, calls=1)
        note_run(5)
        report = client.get("/readyz", headers=auth).json
        assert (report["upstream"]["state"], report["upstream"]["failing_since"]) == ("answering", None)
        assert report["upstream"]["reason"] is None
        assert 5 <= report["last_good_run"]["age_seconds"] < 35

    def test_a_failure_that_the_next_look_up_may_mend_is_told_and_no_state(self, client, auth):
        note_run(60, due=1, calls=1)
        failed(20)
        report = client.get("/readyz", headers=auth).json["upstream"]
        assert (report["state"], report["failing_since"] is None) == ("answering", False)

    def test_it_is_paused(self, client, auth):
        pauses.pause_account("upstream answered 403 used_up", utcnow())
        assert client.get("/readyz", headers=auth).json["upstream"]["state"] == "paused"


@pytest.mark.parametrize("name", ["last_run", "last_good_run"])
def test_a_run_of_the_future_has_no_age(client, name, auth):
    note_run(-8 * 3600, due=1, calls=1)
    report = client.get("/readyz", headers=auth).json
    assert (report[name]["age_seconds"], report[name]["in_future"]) == (None, True)
    assert (report["upstream"]["answered_age_seconds"], report["upstream"]["answered_in_future"]) == (
        None,
        True,
    )


def test_a_clock_that_is_a_little_ahead_gives_no_negative_age(client, auth):
    note_run(-20)
    assert client.get("/readyz", headers=auth).json["last_run"] | {"finished_at": 0} == {
        "finished_at": 0,
        "interval_seconds": 1,
        "age_seconds": 0,
        "in_future": False,
    }


def test_a_clock_that_is_right_again_is_told_at_once_and_a_second_reconcilers_counts_too(client, auth):
    def is_told():
        troubles = client.get("/readyz", headers=auth).json["troubles"]
        return "clock_wrong" in [one["code"] for one in troubles]

    for ago in (400, 300, 200):
        note_run(ago - 3600, due=1, calls=1, clock_ahead=3600)
    assert is_told()
    note_run(5, clock_ahead=0)
    assert not is_told()
    note_run(20 - 3600, due=1, calls=1, clock_ahead=3600)  # of another, whose clock is wrong
    note_run(2, clock_ahead=0)
    assert is_told()


class TestTroubles:
    def test_there_are_none_when_all_is_well(self, client):
        now = utcnow()
        runs.close_run(runs.open_run("test:1", now), now, {})
        assert client.get("/readyz").json["troubles"] == []

    def test_each_has_a_code_and_the_key_brings_the_whole_message(self, client, auth):
        now = utcnow()
        runs.close_run(runs.open_run("test:1", now), now, {})
        pauses.pause_account("upstream answered 403 used_up", now)
        assert client.get("/readyz").json["troubles"] == [
            {"code": "upstream_refuses", "message": "Upstream refuses look-ups."}
        ]
        (told,) = client.get("/readyz", headers=auth).json["troubles"]
        assert told["code"] == "upstream_refuses"
        assert "403 used_up" in told["message"]
        assert "ACEDATACLOUD_API_TOKEN" in told["message"]

    def test_a_schema_that_is_behind_is_one(self, client):
        database.execute_sql("DELETE FROM schema_migration")
        assert [one["code"] for one in client.get("/readyz").json["troubles"]] == ["schema_behind"]

    def test_a_database_that_is_away_is_one_and_its_words_need_the_key(self, client, auth, tmp_path):
        database.obj.init(str(tmp_path / "nowhere" / "x"))
        (told,) = client.get("/readyz").json["troubles"]
        assert told == {"code": "database_down", "message": "The database accepts no writes."}
        assert "spool" in client.get("/readyz", headers=auth).json["troubles"][0]["message"]

    def test_they_are_the_overviews_notices(self, client, auth):
        register("t1", now=utcnow() - timedelta(hours=1))
        (told,) = client.get("/readyz", headers=auth).json["troubles"]
        assert told["message"].partition(".")[0].lower() in words(client.get("/", headers=auth).text).lower()
