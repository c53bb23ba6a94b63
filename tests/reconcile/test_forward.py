"""The customer's app is told, over real sockets."""

import json
import random
import threading
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from peewee import OperationalError
from standardwebhooks import Webhook

from receiver.clock import Clock, utcnow
from receiver.config import Settings
from receiver.forward.retries import ENOUGH_ATTEMPTS
from receiver.ledger import due_forwards, endpoints, forwards
from receiver.ledger.engine.db import writing
from receiver.ledger.models import Attempt, Endpoint, Forward
from reconcile import forward as forwarding
from reconcile.forward import Forwarder, sender_for
from reconcile.jobs import AGAIN_AFTER, FORWARD, forward_events
from tests.factories import body, finished_item, look_up, record, register
from tests.processes import wait_until
from tests.sink import Sink, hang, reply

SECRET = "whsec_" + "c2VjcmV0" * 4
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class SetClock(Clock):
    """A clock that tests set ahead."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)
        self.seconds_ahead = 0.0

    def now(self) -> Any:
        return utcnow() + self.ahead

    def monotonic(self) -> float:
        return super().monotonic() + self.seconds_ahead


class StillClock(SetClock):
    """Its monotonic clock stands still until it is set ahead: a machine that is busy changes nothing."""

    def monotonic(self) -> float:
        return self.seconds_ahead


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


def test_a_process_that_stands_still_after_its_claim_tells_nothing_twice(make, sink, monkeypatch):
    clock = StillClock()
    forwarder = make(clock, FORWARD_URL=sink.url, FORWARD_WHEN="settled")
    forwarder.run()
    record(body("t1"))
    claim, claimed_at = forwards.claim, []

    def stand_still(now, *rest):
        claimed = claim(now, *rest)
        if claimed and not claimed_at:
            clock.ahead += due_forwards.LEASE
        claimed_at.extend(now for _ in claimed)
        return claimed

    monkeypatch.setattr(forwards, "claim", stand_still)
    forwarder.run()
    assert len(claimed_at) == 2
    assert len(told(sink)) == 1
    assert Attempt.select().count() == 1


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


def test_an_endpoint_that_hangs_leaves_the_others_alone(make, sink):
    with Sink(always=hang()) as hanging:
        forwarder = make(FORWARD_URL=f"{hanging.url} {sink.url}")
        forwarder.run()
        for number in range(20):
            record(body(f"t{number}"), confirm=True)
            look_up([finished_item(f"t{number}")])
        running = threading.Thread(target=forwarder.run)
        running.start()
        wait_until(lambda: len(sink.received) == 20 and hanging.received)
        assert Endpoint.get(Endpoint.url == hanging.url).failure is None  # it still hangs
        hanging.stopping.set()
        running.join(60)
    assert len(told(sink)) == 20


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
    assert endpoints.pause(Endpoint.get().id, clock.now())
    record(body("t1"), confirm=True)
    look_up([finished_item("t1")])
    clock.ahead += 2 * HOUR
    forwarder.run()
    assert sink.received == []
    assert endpoints.resume(Endpoint.get().id, clock.now())
    forwarder.run()
    assert len(sink.received) == 1


def confirm(*ids: str, **fields: Any) -> None:
    """Let tasks have results that upstream has confirmed."""
    for task_id in ids:
        register(task_id, **fields)
        record(body(task_id), confirm=True)
        look_up([finished_item(task_id)])


class TestErrors:
    def test_a_body_that_cannot_be_read_fails_by_itself(self, make, sink, caplog):
        forwarder = make(FORWARD_URL=sink.url)
        forwarder.run()
        confirm("bad", "good")
        forwarding.deal(forwarder._clock.now(), "confirmed")
        with writing():
            Forward.update(body=b"no zlib").where(Forward.task_id == "bad").execute()
        forwarder.run()
        assert [event["data"]["task"]["id"] for event in told(sink)] == ["good"]
        bad = Forward.get(Forward.task_id == "bad")
        assert (bad.status, bad.attempts, bad.leased_until) == ("pending", 1, None)
        assert bad.cause == Attempt.get(Attempt.forward == bad.id).error == "unexpected error"
        assert "unexpected error" in caplog.text

    def test_a_url_that_cannot_be_read_fails_by_itself(self, make, sink):
        forwarder = make(FORWARD_URL=sink.url, FORWARD_ALLOW_PRIVATE="true")
        forwarder.run()
        confirm("bad", callback_url="http://[bad:port")
        confirm("good", callback_url=sink.url)
        forwarder.run()
        assert len(told(sink)) == 3
        (bad,) = Forward.select().where(Forward.status == "pending")
        assert (bad.task_id, bad.cause) == ("bad", "the URL is not valid")

    def test_an_attempt_that_could_not_be_noted_is_noted_later_and_not_made_again(
        self, make, sink, monkeypatch, caplog
    ):
        forwarder = make(FORWARD_URL=sink.url)
        forwarder.run()
        confirm("t1")
        with monkeypatch.context() as away:
            away.setattr(forwards, "note", failing(OperationalError("the database is away")))
            soon: list[Any] = []
            forward_events(forwarder, lambda *when: soon.append(when))
        assert soon == [(FORWARD, AGAIN_AFTER)]
        assert "the database is away" in caplog.text
        assert Forward.get().status == "pending"
        forwarder.run()
        assert (Forward.get().status, len(told(sink))) == ("delivered", 1)

    def test_a_process_that_dies_before_it_notes_an_attempt_has_it_made_again_after_the_lease(
        self, make, sink, monkeypatch
    ):
        clock = SetClock()
        dying, other = make(clock, FORWARD_URL=sink.url), make(clock, FORWARD_URL=sink.url)
        dying.run()
        confirm("t1")
        with monkeypatch.context() as away:
            away.setattr(forwards, "note", failing(OperationalError("the database is away")))
            with pytest.raises(OperationalError):
                dying.run()
        other.run()
        assert len(sink.received) == 1
        clock.ahead += forwards.LEASE
        other.run()
        assert Forward.get().status == "delivered"
        assert [len(told(sink)), len({one.headers["webhook-id"] for one in sink.received})] == [2, 1]

    def test_an_unexpected_error_is_logged_and_the_next_run_goes_on(self, make, sink, monkeypatch, caplog):
        forwarder = make(FORWARD_URL=sink.url)
        forwarder.run()
        confirm("t1")
        soon: list[Any] = []
        with monkeypatch.context() as broken:
            broken.setattr(forwards, "claim", failing(KeyError("a bug")))
            forward_events(forwarder, lambda *when: soon.append(when))
        assert soon == [(FORWARD, AGAIN_AFTER)]
        assert "KeyError: 'a bug'" in caplog.text
        forward_events(forwarder, lambda *when: soon.append(when))
        assert len(told(sink)) == 1


def failing(problem: Exception) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise problem

    return fail


def test_a_stop_awaits_what_is_in_flight_and_begins_nothing(make, sink):
    forwarder, may_answer = make(FORWARD_URL=sink.url), threading.Event()
    forwarder.run()
    confirm("t1")

    def answer_late(of: Sink, connection: Any) -> bool:
        may_answer.wait(60)
        return reply()(of, connection)

    sink.then(answer_late)
    running = threading.Thread(target=forwarder.run)
    running.start()
    wait_until(lambda: sink.received)
    forwarder._stop.set()
    confirm("t2")
    may_answer.set()
    running.join(20)
    assert not running.is_alive()
    assert len(told(sink)) == 1
    assert [(one.task_id, one.status) for one in Forward.select()][:1] == [("t1", "delivered")]
    assert Forward.select().where(Forward.leased_until.is_null(False)).count() == 0


def test_a_run_with_a_bound_awaits_what_is_in_flight_and_leaves_the_rest(make, sink):
    """An app that is slow, and for which there is always more, must not hold a single run for ever."""
    clock = SetClock()
    forwarder = make(clock, FORWARD_URL=sink.url)
    forwarder.run()
    confirm(*(f"t{number}" for number in range(40)))

    def answer_slowly(of: Sink, connection: Any) -> bool:
        clock.seconds_ahead += 20
        return reply()(of, connection)

    sink.always = answer_slowly
    forwarder.run(for_seconds=60)
    assert 3 <= len(told(sink)) <= 24  # three make the time up, and eight are sent at once
    assert Forward.select().where(Forward.status == "delivered").count() == len(sink.received)
    assert Forward.select().where(Forward.leased_until.is_null(False)).count() == 0


class TestChains:
    @pytest.fixture
    def one_place(self, monkeypatch):
        monkeypatch.setattr(due_forwards, "PER_HOST", 1)

    @pytest.fixture
    def sizes(self, monkeypatch):
        """Lists how long the chains were that were claimed."""
        sizes, claim = [], forwards.claim

        def watched(*wanted: Any) -> Any:
            chains = claim(*wanted)
            sizes.extend(len(chain) for chain in chains)
            return chains

        monkeypatch.setattr(forwards, "claim", watched)
        return sizes

    def test_a_backlog_goes_out_in_chains_that_grow(self, make, sink, sizes):
        forwarder = make(StillClock(), FORWARD_URL=sink.url)
        forwarder.run()
        confirm(*(f"t{number}" for number in range(300)))
        forwarder.run()
        assert len(told(sink)) == sum(sizes) == 300
        assert sizes[0] == 1
        assert max(sizes) >= 8
        assert sink.connections <= due_forwards.PER_HOST

    def test_it_ends_at_the_first_failure_and_the_rest_goes_out_at_once(self, make, sink, one_place, sizes):
        forwarder = make(StillClock(), FORWARD_URL=sink.url)
        forwarder.run()
        confirm(*(f"t{number}" for number in range(15)))
        sink.then(*[reply()] * 9, reply(500))
        forwarder.run()
        assert sizes == [1, 2, 4, 8, 2, 3]  # of the eight, two were delivered, one failed, five were left
        assert len(told(sink)) == 15
        (failed,) = Forward.select().where(Forward.status == "pending")
        assert (failed.attempts, failed.cause) == (1, "HTTP 500")
        assert Attempt.select().count() == 15
        assert Forward.select().where(Forward.leased_until.is_null(False)).count() == 0

    def test_a_slow_app_gets_short_ones_so_that_new_events_find_a_place(self, make, sink, one_place, sizes):
        clock = StillClock()
        forwarder = make(clock, FORWARD_URL=sink.url)
        forwarder.run()
        confirm(*(f"t{number}" for number in range(15)))

        def answer_slowly(of: Sink, connection: Any) -> bool:
            clock.seconds_ahead += 1
            return reply()(of, connection)

        sink.then(*[reply()] * 7)
        sink.always = answer_slowly
        forwarder.run()
        assert sizes[:4] == [1, 2, 4, 8]
        assert max(sizes[4:]) <= 2
        assert len(told(sink)) == Forward.select().where(Forward.status == "delivered").count() == 15


def test_a_forward_is_given_up_after_8_days_and_no_sooner(make, sink):
    clock = SetClock()
    forwarder = make(clock, FORWARD_URL=sink.url)
    forwarder.run()
    confirm("t1")
    sink.always = reply(500)
    forwarder.run()
    endpoints.pause(Endpoint.get().id, clock.now())
    clock.ahead += 30 * DAY  # they do not count
    endpoints.resume(Endpoint.get().id, clock.now())
    with writing():
        Forward.update(attempts=ENOUGH_ATTEMPTS - 2).execute()
    for days, status in ((7.9, "pending"), (0.6, "failed")):
        clock.ahead += days * DAY
        forwarder.run()
        assert Forward.get().status == status
    assert Forward.get().attempts == ENOUGH_ATTEMPTS


def test_a_clock_that_was_behind_gives_no_forward_up_and_holds_no_endpoint(make, sink):
    clock = SetClock()
    forwarder = make(clock, FORWARD_URL=sink.url)
    forwarder.run()
    clock.ahead = -2500 * DAY
    confirm("t1")
    sink.always = reply(500)
    forwarder.run()
    clock.ahead = timedelta(0)
    forwarder.run()
    assert (Forward.get().status, Forward.get().attempts, Endpoint.get().held_at) == ("pending", 2, None)


def test_probes_of_a_held_endpoint_give_nothing_up(make, sink):
    clock = SetClock()
    forwarder = make(clock, FORWARD_URL=sink.url)
    forwarder.run()
    confirm("t1")
    sink.always = reply(500)
    for _ in range(20):
        forwarder.run()
        clock.ahead += 11 * HOUR
    assert Endpoint.get().held_because == "failing"
    for _ in range(4):
        clock.ahead += 3 * DAY
        forwarder.run()
    assert Forward.get().status == "pending"
    assert Forward.get().attempts >= 14
