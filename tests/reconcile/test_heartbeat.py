"""HEARTBEAT_URL is fetched after good runs, once a minute, and disturbs nothing."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from receiver.clock import Clock
from receiver.forward.sender import Sender
from reconcile import jobs, once
from reconcile.counts import Counts
from reconcile.heartbeat import EVERY_SECONDS, Heartbeat
from tests.processes import wait_until
from tests.sink import Sink, hang, reply


class Ticking(Clock):
    seconds = 1000.0

    def monotonic(self):
        return self.seconds


class Run:
    """A reconciler whose runs come to what the test says."""

    has_more = False

    def __init__(self, was_good, error=None):
        self.was_good = was_good
        self.counts = Counts(error=error)

    def run(self):
        return self.counts


class Quiet:
    def note(self, counts):
        pass


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture
def clock():
    return Ticking()


@pytest.fixture
def heartbeat(sink, clock) -> Iterator[Heartbeat]:
    with closing(Sender(allow_private_urls=False, connections=1)) as sender:
        yield Heartbeat(f"{sink.url}/ping?id=1", sender, clock)


def run(reconciler, heartbeat):
    jobs.reconcile_due_tasks(reconciler, Quiet(), lambda *_: None, heartbeat)


def test_a_good_run_fetches_it_once_a_minute(sink, clock, heartbeat):
    run(Run(True), heartbeat)
    wait_until(lambda: len(sink.received) == 1)
    assert sink.received[0].line.startswith("GET /ping?id=1 ")
    first = heartbeat._thread
    heartbeat.wait()
    clock.seconds += EVERY_SECONDS - 1
    run(Run(True), heartbeat)
    assert heartbeat._thread is first
    clock.seconds += 1
    run(Run(True), heartbeat)
    wait_until(lambda: len(sink.received) == 2)


@pytest.mark.parametrize("reconciler", [Run(False, "upstream answered 500"), Run(False)])
def test_no_other_does(sink, heartbeat, reconciler):
    run(reconciler, heartbeat)
    assert heartbeat._thread is None


def test_one_that_hangs_delays_no_run_and_is_not_asked_twice(sink, clock, heartbeat):
    sink.then(hang())
    run(Run(True), heartbeat)
    wait_until(lambda: len(sink.received) == 1)
    clock.seconds += 2 * EVERY_SECONDS
    run(Run(True), heartbeat)
    assert len(sink.received) == 1
    sink.stopping.set()
    heartbeat.wait()  # otherwise it would log in the next test


def test_a_failure_is_logged_without_the_address(sink, heartbeat, caplog):
    sink.then(reply(500))
    heartbeat.beat()
    heartbeat.wait()
    assert [record.getMessage() for record in caplog.records] == [
        "HEARTBEAT_URL could not be fetched: it answered 500"
    ]


def test_without_an_address_nothing_happens(clock):
    threads = threading.active_count()
    Heartbeat(None, None, clock).beat()
    assert threading.active_count() == threads


def test_a_single_run_fetches_it_before_it_ends(sink, heartbeat):
    once._beat(heartbeat)
    assert [one.line for one in sink.received] == ["GET /ping?id=1 HTTP/1.1"]
