"""The API of endpoints: their health, pause and resume, and test events."""

import json
from datetime import timedelta

import pytest
from standardwebhooks import Webhook

from receiver.clock import utcnow
from receiver.ledger.models import Attempt, Endpoint, Forward
from receiver.upstream.results import parse_json
from tests.factories import create_endpoint, create_forward, finished_item, look_up, register
from tests.sink import Sink, reply, reset

NOW = utcnow().replace(microsecond=0)
MINUTE = timedelta(minutes=1)
SECRET = "whsec_" + "c2VjcmV0" * 4


@pytest.fixture
def sink():
    with Sink() as sink:
        yield sink


@pytest.fixture
def telling(make_client, auth, sink):
    """The API of a Backstop that has an endpoint."""
    client = make_client(FORWARD_URL=f"http://user:geheim@127.0.0.1:{sink.port}/hook", FORWARD_SECRET=SECRET)
    client.environ_base["HTTP_AUTHORIZATION"] = auth["Authorization"]
    create_endpoint(f"http://user:geheim@127.0.0.1:{sink.port}/hook")
    return client


def test_they_are_listed_with_their_health(api):
    one = create_endpoint("https://user:geheim@app.example/hook", failing_since=NOW, failure="HTTP 500")
    for status in ("delivered", "delivered", "failed", "pending"):
        create_forward(endpoint=one, status=status, created_at=utcnow() - 5 * MINUTE)
    answer = api.get("/api/endpoints")
    (told,) = answer.json["items"]
    assert "geheim" not in answer.text
    assert (told["url"], told["in_forward_url"]) == ("https://***@app.example/hook", True)
    assert (told["lately"], told["waiting"]) == ({"delivered": 2, "of": 4}, 1)
    assert told["oldest_waiting_at"] is not None
    assert (told["failure"], told["held_because"]) == ("HTTP 500", None)


class TestHold:
    def test_a_person_pauses_and_resumes(self, api):
        create_endpoint()
        for _ in range(2):
            answer = api.post("/api/endpoints/1/pause")
            assert (answer.status_code, answer.json["held_because"]) == (200, "person")
        for _ in range(2):
            answer = api.post("/api/endpoints/1/resume")
            assert (answer.status_code, answer.json["held_because"]) == (200, None)

    def test_to_pause_one_that_fails_ends_its_probes(self, api):
        held_at = NOW - MINUTE
        create_endpoint(held_at=held_at, held_because="failing", probe_at=NOW)
        told = api.post("/api/endpoints/1/pause").json
        assert (told["held_because"], told["next_probe_at"]) == ("person", None)
        assert Endpoint.get().held_at == held_at

    @pytest.mark.parametrize("action", ["pause", "resume", "test"])
    @pytest.mark.parametrize("number", [99, 10**30])
    def test_there_is_none(self, api, action, number):
        assert api.post(f"/api/endpoints/{number}/{action}").status_code == 404


class TestTrial:
    def test_it_is_sent_like_a_real_one_and_the_answer_shown(self, telling, sink):
        sink.always = reply(200, b"thanks")
        answer = telling.post("/api/endpoints/1/test")
        assert (answer.status_code, answer.json["delivered"]) == (200, True)
        assert (answer.json["answered"]["status"], answer.json["answered"]["answer"]) == (200, "thanks")
        assert answer.json["answered"]["milliseconds"] >= 0
        assert "geheim" not in answer.text
        (received,) = sink.received
        Webhook(SECRET).verify(received.body, received.headers)
        assert received.line == "POST /hook HTTP/1.1"
        assert answer.json["sent"]["body"] == received.body.decode()
        assert received.headers["webhook-id"] == answer.json["sent"]["headers"]["webhook-id"]
        told = json.loads(received.body)
        assert (told["type"], told["test"]) == ("task.succeeded", True)

    def test_it_has_the_fields_of_a_real_one(self, telling, sink):
        telling.post("/api/endpoints/1/test")
        register("t1")
        look_up([finished_item("t1")], now=utcnow() + 10 * MINUTE)
        real = telling.get("/api/events").json["items"][0]
        trial = parse_json(sink.received[0].body.decode())
        assert trial["data"].keys() == real["data"].keys()
        assert trial["data"]["task"].keys() == real["data"]["task"].keys()
        assert (trial["data"]["task"]["status"], trial["data"]["task"]["confirmed"]) == ("succeeded", True)

    @pytest.mark.parametrize(("act", "kind"), [(reply(500, b"oh no"), "refused"), (reset(), "network")])
    def test_a_bad_answer_is_shown_after_one_attempt(self, telling, sink, act, kind):
        sink.always = act
        answer = telling.post("/api/endpoints/1/test")
        assert (answer.status_code, answer.json["delivered"]) == (200, False)
        assert answer.json["answered"]["kind"] == kind
        assert len(sink.received) == 1

    def test_nothing_follows_from_it(self, telling, sink):
        sink.always = reply(410)
        Endpoint.update(held_at=NOW, held_because="person").execute()
        before = Endpoint.get().__data__
        assert telling.post("/api/endpoints/1/test").json["answered"]["kind"] == "gone"
        assert Endpoint.get().__data__ == before
        assert (Forward.select().count(), Attempt.select().count()) == (0, 0)

    @pytest.mark.parametrize("fields", [{"is_app": False}, {"retired_at": NOW}])
    def test_only_what_forward_url_names_is_tested(self, api, sink, fields):
        create_endpoint(sink.url, **fields)
        answer = api.post("/api/endpoints/1/test")
        assert (answer.status_code, "FORWARD_URL" in answer.json["error"]["message"]) == (409, True)
        assert sink.received == []
