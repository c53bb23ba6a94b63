"""The customer's app is told, over real sockets."""

import json
import random
import threading
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook

from receiver.clock import Clock, utcnow
from receiver.config import Settings
from receiver.ledger import endpoints
from receiver.ledger.models import Attempt, Endpoint, Forward
from reconcile.forward import Forwarder, sender_for
from tests.factories import body, finished_item, look_up, record, register
from tests.sink import Sink, hang, reply

SECRET = "whsec_" + "c2VjcmV0" * 4
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class SetClock(Clock):
    """A clock that tests set ahead."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> Any:
        return utcnow() + self.ahead


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture
def make(ledger: str, make_settings: Callable[..., Settings]) -> Iterator[Callable[..., Forwarder]]:
    senders = []

    def make(clock: Clock | None = None, **variables: Any) -> Forwarder:
        settings = make_settings(FORWARD_SECRET=SECRET, **variables)
        senders.append(sender_for(settings))
        return Forwarder(settings, senders[-1], clock or Clock(), random.Random(1), threading.Event())

    yield make
    for sender in senders:
        sender.close()


def told(sink: Sink) -> list[dict[str, Any]]:
    """Return the bodies of the events that came, after checking their signatures."""
    for request in sink.received:
        Webhook(SECRET).verify(request.body, request.headers)
    return [json.loads(request.body) for request in sink.received]


def test_a_result_is_told_when_upstream_has_confirmed_it(make, sink):
    forwarder = make(FORWARD_URL=sink.url)
    forwarder.run()
    register("t1")
    record(body("t1"), confirm=True)
    forwarder.run()
    assert sink.received == []
    look_up([finished_item("t1")])
    forwarder.run()
    (event,) = told(sink)
    assert (event["type"], event["data"]["sequence"]) == ("task.succeeded", 1)
    task = event["data"]["task"]
    assert (task["id"], task["status"], task["confirmed"]) == ("t1", "succeeded", True)
    forwarder.run()
    assert len(sink.received) == 1
    assert Forward.get().status == "delivered"


def test_with_settled_it_is_told_at_once_and_not_again_when_confirmed(make, sink):
    forwarder = make(FORWARD_URL=sink.url, FORWARD_WHEN="settled")
    forwarder.run()
    record(body("t1"), confirm=True)
    forwarder.run()
    look_up([finished_item("t1")])
    forwarder.run()
    (event,) = told(sink)
    assert event["data"]["task"]["confirmed"] is None


def test_a_tasks_own_callback_url_gets_upstreams_body(make, sink):
    forwarder = make(FORWARD_ALLOW_PRIVATE="true")
    register("t1", callback_url=f"{sink.url}/hook?order=7")
    record(body("t1"), confirm=True)
    look_up([finished_item("t1")])
    forwarder.run()
    (posted,) = told(sink)
    assert sink.received[0].line == "POST /hook?order=7 HTTP/1.1"
    assert posted == finished_item("t1")["response"]


def test_a_callback_url_that_comes_after_the_result_is_told_too(make, sink):
    forwarder = make(FORWARD_ALLOW_PRIVATE="true")
    record(body("t1"), confirm=True)
    look_up([finished_item("t1")])
    forwarder.run()
    for _ in range(2):
        register("t1", callback_url=sink.url)
    forwarder.run()
    assert len(told(sink)) == 1


def test_a_callback_url_may_not_lead_into_a_private_network(make, sink):
    forwarder = make()
    register("t1", callback_url=sink.url)
    record(body("t1"), confirm=True)
    look_up([finished_item("t1")])
    forwarder.run()
    assert sink.connections == 0
    assert Forward.get().cause == "not a public address"


def test_what_fails_is_sent_again_with_the_same_id_and_body(make, sink):
    clock = SetClock()
    forwarder = make(clock, FORWARD_URL=sink.url)
    forwarder.run()
    sink.then(reply(500, b"oh no"), reply(503))
    record(body("t1"), confirm=True)
    look_up([finished_item("t1")])
    forwarder.run()
    assert (Forward.get().status, Forward.get().cause, len(sink.received)) == ("pending", "HTTP 500", 1)
    for _ in range(2):
        clock.ahead += timedelta(seconds=70)
        forwarder.run()
    first, *others = [(request.headers["webhook-id"], request.body) for request in sink.received]
    assert others == [first] * 2
    attempts = [(one.kind, one.status, bytes(one.answer)) for one in Attempt.select().order_by(Attempt.id)]
    assert attempts == [("refused", 500, b"oh no"), ("throttled", 503, b""), ("delivered", 200, b"")]
    assert json.loads(zlib.decompress(Forward.get().body)) == json.loads(first[1])


def test_an_endpoint_that_hangs_leaves_the_others_alone(make, sink, monkeypatch):
    monkeypatch.setattr("receiver.forward.sender.ATTEMPT_WITHIN_SECONDS", 1.0)
    with Sink(always=hang()) as hanging:
        forwarder = make(FORWARD_URL=f"{hanging.url} {sink.url}")
        forwarder.run()
        for number in range(20):
            record(body(f"t{number}"), confirm=True)
            look_up([finished_item(f"t{number}")])
        forwarder.run()
        assert len(told(sink)) == 20
        assert len(hanging.received) >= 1
    assert Endpoint.get(Endpoint.url == hanging.url).failure == "no answer in time"


def test_a_held_endpoint_gets_a_probe_an_hour_and_everything_after_a_success(make, sink):
    clock = SetClock()
    forwarder = make(clock, FORWARD_URL=sink.url)
    forwarder.run()
    sink.always = reply(410)
    for number in range(3):
        record(body(f"t{number}"), confirm=True)
        look_up([finished_item(f"t{number}")])
        forwarder.run()
    assert (len(sink.received), Endpoint.get().held_because) == (1, "gone")
    clock.ahead += HOUR
    forwarder.run()
    forwarder.run()
    assert len(sink.received) == 2
    sink.always = reply()
    clock.ahead += 30 * DAY  # the eight days stand still
    forwarder.run()
    assert Endpoint.get().held_at is None
    assert [forward.status for forward in Forward.select()] == ["delivered"] * 3


def test_a_person_pauses_and_resumes_an_endpoint(make, sink):
    clock = SetClock()
    forwarder = make(clock, FORWARD_URL=sink.url)
    forwarder.run()
    assert endpoints.hold(Endpoint.get().id, "person", clock.now())
    record(body("t1"), confirm=True)
    look_up([finished_item("t1")])
    clock.ahead += 2 * HOUR
    forwarder.run()
    assert sink.received == []
    assert endpoints.resume(Endpoint.get().id, clock.now())
    forwarder.run()
    assert len(sink.received) == 1
