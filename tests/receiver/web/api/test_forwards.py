"""The API of forwards and of resendings."""

import json
import zlib
from datetime import timedelta

import pytest

from receiver.clock import to_iso, to_unix, utcnow
from receiver.ledger import resending
from receiver.ledger.models import Attempt, Forward
from tests.factories import create_endpoint, create_forward, register

NOW = utcnow().replace(microsecond=0)
MINUTE = timedelta(minutes=1)
SECRET_URL = "https://user:p%40ss@app.example/callbacks/callback-token-of-the-tests/x?a=1"
MASKED_URL = "https://***@app.example/callbacks/***/x?a=1"


def attempt(forward: Forward, **fields) -> Attempt:
    known = {
        "began_at": NOW,
        "took": 0.0123,
        "url": SECRET_URL,
        "headers": json.dumps({"webhook-id": "msg_1"}),
    }
    known |= {"kind": "refused", "status": 500, "answer": b"oh no \xff", "error": None}
    return Attempt.create(forward=forward, **known | fields)


class TestList:
    def test_it_pages_through_what_a_filter_holds(self, api):
        ids = [create_forward(created_at=NOW + n * MINUTE).id for n in range(5)]
        create_forward(status="delivered")
        first = api.get("/api/forwards?status=pending&limit=3").json
        rest = api.get("/api/forwards", query_string={"status": "pending", "before": first["next"]}).json
        assert [item["id"] for item in first["items"] + rest["items"]] == ids[::-1]
        assert rest["next"] is None

    def test_an_item_tells_everything_but_credentials(self, api):
        endpoint = create_endpoint("https://user:p%40ss@app.example", is_app=False, held_at=NOW)
        one = create_forward(
            endpoint=endpoint, url=SECRET_URL, created_at=NOW, event=3, sequence=2, attempts=4
        )
        answer = api.get("/api/forwards")
        assert answer.json["items"] == [
            {
                "id": one.id,
                "status": "held",
                "endpoint": endpoint.id,
                "url": MASKED_URL,
                "webhook_id": f"msg_{one.id}_{int(to_unix(NOW))}",
                "type": "task.succeeded",
                "task_id": "t1",
                "sequence": 2,
                "happened_at": to_iso(NOW),
                "created_at": to_iso(NOW),
                "attempts": 4,
                "cause": None,
                "ended_at": None,
                "resends": None,
                "resent_at": None,
            }
        ]

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({"endpoint": "2"}, [2]),
            ({"type": "task.failed"}, [2]),
            ({"task": "t2"}, [2]),
            ({"cause": "HTTP 500"}, [2]),
            ({"since": to_iso(NOW)}, [1]),
            ({"until": to_iso(NOW)}, [2]),
            ({"status": "failed", "task": "t1"}, []),
        ],
    )
    def test_its_filters(self, api, query, found):
        create_forward(created_at=NOW)
        other = create_endpoint("https://other.example/")
        create_forward(
            endpoint=other,
            status="failed",
            type="task.failed",
            task_id="t2",
            cause="HTTP 500",
            created_at=NOW - MINUTE,
        )
        assert [item["id"] for item in api.get("/api/forwards", query_string=query).json["items"]] == found

    @pytest.mark.parametrize(
        "query",
        [
            "status=lost",
            "endpoint=x",
            "type=task.confirmed",
            "task=%00",
            "since=soon",
            "q=x",
            "before=x",
            "status=held&status=failed",
        ],
    )
    def test_a_bad_parameter_is_named(self, api, query):
        answer = api.get(f"/api/forwards?{query}")
        assert (answer.status_code, query.split("=")[0] in answer.json["error"]["message"]) == (400, True)


class TestShow:
    def test_it_tells_the_body_and_each_attempt_as_sent_and_answered(self, api):
        one = create_forward(body=zlib.compress('{"é": 1}'.encode()), attempts=1, cause="HTTP 500")
        attempt(one)
        attempt(one, kind="timeout", status=None, answer=b"", error="no answer in time")
        shown = api.get(f"/api/forwards/{one.id}").json
        assert shown["body"] == '{"é": 1}'
        last, first = shown["attempts"]
        assert (last["kind"], last["status"], last["error"]) == ("timeout", None, "no answer in time")
        assert (first["url"], first["milliseconds"]) == (MASKED_URL, 12)
        assert (first["headers"], first["answer"]) == ({"webhook-id": "msg_1"}, "oh no \ufffd")

    @pytest.mark.parametrize("number", [99, 10**30])
    def test_there_is_none(self, api, number):
        assert api.get(f"/api/forwards/{number}").status_code == 404

    def test_it_tells_when_and_why_the_next_attempt_comes(self, api):
        def following(**fields) -> tuple[str | None, str]:
            told = api.get(f"/api/forwards/{create_forward(**fields).id}").json["next"]
            return told and (told["at"], told["because"])

        due = {"next_attempt_at": NOW + MINUTE}
        held, person, retired = (
            create_endpoint(f"https://{n}.example/", **fields)
            for n, fields in enumerate(
                (
                    {"held_at": NOW, "held_because": "gone", "probe_at": NOW + 60 * MINUTE},
                    {"held_at": NOW, "held_because": "person"},
                    {"retired_at": NOW},
                )
            )
        )
        assert following(status="delivered") is None
        assert following(**due, task_id="a") == (to_iso(NOW + MINUTE), "it is due")
        assert following(**due, task_id="b", attempts=2, cause="HTTP 500") == (
            *(to_iso(NOW + MINUTE), "attempt 2 failed: HTTP 500"),
        )
        assert following(**due, task_id="a") == (
            None,
            "it waits for forward 2, an earlier one of the same task",
        )
        assert following(task_id="c", leased_until=utcnow() + MINUTE) == (None, "it is being sent")
        assert following(endpoint=person) == (None, "a person has paused its endpoint")
        at, because = following(endpoint=held)
        assert (at, "410 Gone" in because) == (to_iso(NOW + 60 * MINUTE), True)
        assert following(endpoint=person, task_id="d", pushed=True, **due)[1] == "a person wants it sent now"
        assert following(endpoint=retired) == (None, "its endpoint is no longer in FORWARD_URL")


class TestSteer:
    def test_one_is_sent_again(self, api):
        one = create_forward(status="failed")
        answer = api.post(f"/api/forwards/{one.id}/resend")
        assert (answer.status_code, answer.json["status"], answer.json["resends"]) == (202, "pending", one.id)
        assert answer.json["webhook_id"] == one.message_id
        original = api.get(f"/api/forwards/{one.id}").json
        assert (original["status"], original["resent_at"]) == ("resent", answer.json["created_at"])
        assert api.get("/api/forwards?status=failed").json["items"] == []

    def test_not_to_an_endpoint_that_is_no_longer_configured(self, api):
        one = create_forward(status="failed", endpoint=create_endpoint(retired_at=NOW))
        answer = api.post(f"/api/forwards/{one.id}/resend")
        assert (answer.status_code, "FORWARD_URL" in answer.json["error"]["message"]) == (409, True)
        assert api.post("/api/forwards/99/resend").status_code == 404

    def test_one_is_dismissed(self, api):
        one = create_forward(status="failed")
        answer = api.post(f"/api/forwards/{one.id}/dismiss")
        assert (answer.status_code, answer.json["status"]) == (200, "dismissed")
        again = api.post(f"/api/forwards/{one.id}/dismiss")
        assert (again.status_code, "dismissed" in again.json["error"]["message"]) == (409, True)
        assert api.post("/api/forwards/99/dismiss").status_code == 404

    def test_all_that_a_filter_holds_is_ordered_watched_and_stopped(self, api):
        for _ in range(3):
            create_forward(status="failed")
        answer = api.post("/api/forwards/resend", json={"status": "failed", "endpoint": 1, "rate": 5})
        assert answer.status_code == 202
        told = answer.json
        assert (told["total"], told["done"], told["rate"]) == (3, 0, 5)
        assert told["filter"] == {"status": "failed", "endpoint": 1}
        resending.advance(utcnow())
        path = f"/api/resendings/{told['id']}"
        assert (api.get(path).json["done"], api.get(path).json["ended_at"]) == (1, None)
        assert [one["id"] for one in api.get("/api/resendings").json["items"]] == [told["id"]]
        stopped = api.post(f"{path}/stop")
        assert (stopped.status_code, stopped.json["stopped_at"] is None) == (200, False)
        assert api.post(f"{path}/stop").status_code == 409
        assert (
            api.get("/api/resendings/99").status_code,
            api.post("/api/resendings/99/stop").status_code,
        ) == (*(404, 404),)

    @pytest.mark.parametrize(
        ("order", "named"),
        [
            ({}, "which forwards"),
            ({"rate": 5}, "which forwards"),
            ([], "object"),
            ({"status": "failed", "rate": 0}, "rate"),
            ({"status": "failed", "rate": "fast"}, "rate"),
            ({"status": "failed", "rate": True}, "rate"),
            ({"status": "failed", "rate": 1e9}, "rate"),
            ({"status": ["failed"]}, "status"),
            ({"status": "lost"}, "status"),
            ({"endpoint": True}, "endpoint"),
            ({"state": "failed"}, "state"),
        ],
    )
    def test_a_bad_order_is_named(self, api, order, named):
        answer = api.post("/api/forwards/resend", json=order)
        assert (answer.status_code, named in answer.json["error"]["message"]) == (400, True), answer.json

    def test_an_empty_body_is_told_what_it_must_hold(self, api):
        answer = api.post("/api/forwards/resend", data=b"")
        assert answer.status_code == 400
        assert answer.json["error"]["message"] == (
            'The body is empty. Send JSON like {"status": "failed", "rate": 10}.'
        )

    def test_too_many_are_refused(self, api, monkeypatch):
        monkeypatch.setattr("receiver.ledger.choosing.MOST_TO_COUNT", 1)
        for _ in range(2):
            create_forward(status="failed")
        answer = api.post("/api/forwards/resend", json={"status": "failed"})
        assert (answer.status_code, "since" in answer.json["error"]["message"]) == (400, True)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/forwards"),
        ("GET", "/api/forwards/1"),
        ("POST", "/api/forwards/1/resend"),
        ("POST", "/api/forwards/1/dismiss"),
        ("POST", "/api/forwards/resend"),
        ("GET", "/api/resendings"),
        ("GET", "/api/endpoints"),
        ("POST", "/api/endpoints/1/test"),
        ("POST", "/api/endpoints/1/pause"),
    ],
)
def test_each_needs_the_key(client, method, path):
    assert client.open(path, method=method).status_code == 401


def test_a_task_shows_its_forwards(api):
    register("t1", callback_url=SECRET_URL)
    ids = [create_forward(task_id="t1").id for _ in range(2)]
    create_forward(task_id="t2")
    shown = api.get("/api/tasks/t1").json
    assert [forward["id"] for forward in shown["forwards"]] == ids[::-1]
    assert shown["callback_url"] == MASKED_URL
