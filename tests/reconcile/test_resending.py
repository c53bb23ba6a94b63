"""Events are sent again over real sockets, while the customer's app is told of new ones."""

import random
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from receiver.clock import Clock, from_unix, utcnow
from receiver.config import Settings
from receiver.ledger import endpoints, resending
from receiver.ledger.models import Attempt, Endpoint, Forward, Resending
from receiver.ledger.reading.forwards import ForwardFilter
from reconcile.forward import Forwarder, sender_for
from tests.factories import body, create_forward, finished_item, look_up, record
from tests.forwarding import hold
from tests.reconcile.test_forward import SECRET, SetClock, told
from tests.sink import Sink, reply

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture
def make(
    ledger: str, make_settings: Callable[..., Settings], sink: Sink
) -> Iterator[Callable[..., Forwarder]]:
    senders = []

    def make(clock: Clock | None = None) -> Forwarder:
        settings = make_settings(FORWARD_SECRET=SECRET, FORWARD_URL=sink.url)
        senders.append(sender_for(settings))
        forwarder = Forwarder(settings, senders[-1], clock or Clock(), random.Random(1), threading.Event())
        forwarder.run()
        return forwarder

    yield make
    for sender in senders:
        sender.close()


def settle(task_id: str) -> None:
    record(body(task_id), confirm=True)
    look_up([finished_item(task_id)])


def test_what_was_delivered_is_sent_again_with_the_same_id_and_a_fresh_signature(make, sink):
    clock = SetClock()
    forwarder = make(clock)
    settle("t1")
    forwarder.run()
    clock.ahead += HOUR
    number = resending.resend(Forward.get().id, clock.now())
    forwarder.run()
    first, second = sink.received
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    times = [from_unix(int(request.headers["webhook-timestamp"])) for request in (first, second)]
    assert HOUR - MINUTE < times[1] - times[0] < HOUR + MINUTE
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    assert [(one.id, one.status, one.attempts) for one in Forward.select().order_by(Forward.id)] == [
        (1, "delivered", 1),
        (number, "delivered", 1),
    ]
    assert [attempt.forward_id for attempt in Attempt.select().order_by(Attempt.id)] == [1, number]


def test_a_paused_endpoint_gets_only_what_a_person_sends_and_stays_paused(make, sink):
    clock = SetClock()
    forwarder = make(clock)
    endpoint = Endpoint.get()
    endpoints.pause(endpoint.id, clock.now())
    for name in ("t1", "t2"):
        settle(name)
    forwarder.run()
    assert sink.received == []
    (first, second) = Forward.select().order_by(Forward.id)
    resending.resend(second.id, clock.now())
    forwarder.run()
    assert [event["data"]["task"]["id"] for event in told(sink)] == ["t2"]
    assert Endpoint.get().held_because == "person"
    # Where it fails, it waits as before.
    sink.always = reply(500)
    resending.resend(first.id, clock.now())
    forwarder.run()
    clock.ahead += HOUR
    forwarder.run()
    assert len(sink.received) == 2


def test_a_hold_ends_when_what_a_person_sends_arrives(make, sink):
    clock = SetClock()
    forwarder = make(clock)
    for name in ("t1", "t2"):
        settle(name)
    hold(Endpoint.get().id, "failing", clock.now())
    forwarder.run()
    resending.resend(Forward.get().id, clock.now())
    forwarder.run()
    assert (Endpoint.get().held_at, len(told(sink))) == (None, 2)


def test_all_that_failed_is_sent_again_at_the_pace_also_by_another_process(make, sink):
    clock = SetClock()
    forwarder = make(clock)
    for number in range(12):
        create_forward(
            endpoint=Endpoint.get(), task_id=f"t{number}", status="failed", created_at=clock.now() - MINUTE
        )
    ordered = resending.order(ForwardFilter(status="failed"), 2, clock.now())
    forwarder.run()
    assert 1 <= len(sink.received) < 12
    another = make(clock)
    for _ in range(6):
        clock.ahead += timedelta(seconds=1)
        another.run()
    assert len(sink.received) == 12
    assert (resending.find(ordered.id).done, Resending.get().ended_at is None) == (12, False)
    assert {one.status for one in Forward.select()} == {"resent", "delivered"}


def test_new_events_do_not_wait_for_what_is_sent_again(make, sink):
    forwarder = make()
    for number in range(200):
        old = create_forward(endpoint=Endpoint.get(), task_id=f"old{number}", status="delivered")
        resending.resend(old.id, utcnow())
    settle("new")
    forwarder.run()
    order = [request.body for request in sink.received]
    new = next(place for place, text in enumerate(order) if b'"new"' in text)
    assert len(order) == 201
    assert new < 100


def test_new_events_have_places_while_a_backlog_takes_all_others(make, sink):
    forwarder = make()
    for number in range(640):
        old = create_forward(endpoint=Endpoint.get(), task_id=f"old{number}", status="delivered")
        resending.resend(old.id, utcnow())
    answer = reply()
    begun, settled = threading.Event(), threading.Event()

    def slow(sink: Sink, connection: socket.socket) -> bool:
        number = len(sink.received)
        if number >= 40:
            begun.set()
            settled.wait(60)
        sink.stopping.wait(0.005 + number % 7 * 0.01)  # so that places become free one by one
        return answer(sink, connection)

    sink.always = slow
    thread = threading.Thread(target=forwarder.run)
    thread.start()
    assert begun.wait(60)
    for number in range(4):
        settle(f"new{number}")
    settled.set()
    thread.join(60)
    places = [place for place, request in enumerate(sink.received) if b'"new' in request.body]
    assert len(places) == 4
    assert max(places) < 640
