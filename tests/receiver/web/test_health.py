from datetime import timedelta

from receiver.ledger import pauses, runs
from receiver.ledger.clock import utcnow
from receiver.ledger.models import database


def test_it_is_healthy_without_a_database(client, tmp_path):
    database.obj.init(str(tmp_path / "nowhere" / "x"))
    assert client.get("/healthz").status_code == 200


def test_it_is_ready_with_a_current_schema_and_tells_of_the_last_good_run(client):
    answer = client.get("/readyz")
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
    assert 60 <= client.get("/readyz").json["last_good_run"]["age_seconds"] < 90


def test_it_is_not_ready_when_the_schema_is_behind(client):
    database.execute_sql("DELETE FROM schema_migration")
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json["schema"]) == (503, "behind")


def test_it_is_not_ready_when_the_database_is_away(client, tmp_path):
    database.obj.init(str(tmp_path / "nowhere" / "x"))
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json["database"]) == (503, "unreachable")


def test_it_tells_that_upstream_may_not_be_asked_and_is_ready_all_the_same(client):
    pauses.pause_account("upstream answered 403 used_up", utcnow())
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json["paused"]["reason"]) == (200, "upstream answered 403 used_up")
