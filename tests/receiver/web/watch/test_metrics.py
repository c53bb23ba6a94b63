"""GET /metrics, read with Prometheus's own parser."""

from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from receiver.clock import utcnow
from receiver.ledger import counters, runs
from receiver.ledger.models import database
from receiver.version import VERSION
from tests.factories import body, create_forward, finished_item, look_up, record, register

NOW = utcnow()


def scrape(client, auth):
    answer = client.get("/metrics", headers=auth)
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_it_needs_the_key(client):
    assert client.get("/metrics").status_code == 401


def test_it_tells_what_came_what_became_of_it_and_what_was_missing(client, auth):
    register("t1", "t2", "t3", now=NOW - timedelta(minutes=5), grace=timedelta(0))
    record(body("t1"), NOW)
    look_up([finished_item("t2")], NOW)
    counters.count()
    found = scrape(client, auth)
    assert found["backstop_build_info", VERSION] == 1
    assert found["backstop_database_up",] == 1
    assert found["backstop_deliveries_total", "succeeded"] == 1
    assert found["backstop_tasks", "midjourney", "lookup", "succeeded"] == 1
    assert found["backstop_results_total", "midjourney", "callback", "succeeded"] == 1
    assert found["backstop_missing_callbacks_ratio",] == 0.5
    assert found["backstop_task_duration_seconds_count", "lookup"] == 1
    assert found["backstop_database_bytes",] > 10_000


def test_it_tells_of_the_reconciler_and_of_forwards(client, auth):
    now = utcnow()
    register("t1", now=now - timedelta(minutes=10), grace=timedelta(0))
    run = runs.open_run("test:1", now)
    runs.close_run(run, now, {"calls": 3, "errors": 1})
    create_forward(created_at=now - timedelta(minutes=5))
    found = scrape(client, auth)
    assert found["backstop_tasks_due",] == 1
    assert 600 <= found["backstop_tasks_due_oldest_seconds",] < 660
    assert found["backstop_upstream_calls_total", "answered"] == 2
    assert found["backstop_reconcile_runs_total", "good"] == 1
    assert (
        abs(
            found["backstop_last_good_run_timestamp_seconds",]
            - found["backstop_reconciler_seen_timestamp_seconds",]
        )
        < 5
    )
    assert found["backstop_forwards", "pending"] == 1
    assert 300 <= found["backstop_forwards_oldest_seconds",] < 360


def test_its_troubles_are_those_of_readyz(client, auth):
    register("t1", now=NOW)
    codes = {one["code"] for one in client.get("/readyz", headers=auth).json["troubles"]}
    assert codes == {"reconciler_never_ran"}
    assert {
        key[1] for key, value in scrape(client, auth).items() if key[0] == "backstop_trouble" and value
    } == codes


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_it_answers_without_a_database(client, auth, tmp_path):
    database.obj.init(str(tmp_path / "nowhere" / "x"))
    found = scrape(client, auth)
    assert (found["backstop_database_up",], found["backstop_trouble", "database_down"]) == (0, 1)
