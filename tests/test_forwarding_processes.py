"""The real processes tell the app: beside the web process, inside it, and when they are stopped."""

import json
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from standardwebhooks import Webhook

from receiver.ledger.due_forwards import PER_HOST
from receiver.ledger.models import Attempt, Endpoint, Forward, database
from tests.factories import body
from tests.processes import Backstop, wait_until
from tests.sink import Sink, hang, reply
from tests.upstream import StandIn

SECRET = "whsec_" + "c2VjcmV0" * 4
EVERYWHERE = pytest.mark.parametrize("in_web", [False, True], ids=["beside", "in-web"])

pytestmark = pytest.mark.processes


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


def is_configured() -> bool:
    """Tell whether a process has begun to tell: what happened before is not told."""
    with database.connection_context():
        return Endpoint.select().count() > 0


@pytest.fixture
def start(ledger: str, tmp_path: Path, stand_in: StandIn, sink: Sink) -> Iterator[Callable[[bool], Any]]:
    """Starts a deployment that tells the sink. Returns it, and the process that tells."""
    made: list[Backstop] = []

    def start(in_web: bool) -> Any:
        told = {"FORWARD_URL": sink.url, "FORWARD_SECRET": SECRET, "FORWARD_WHEN": "settled"}
        settings = {"DATABASE_URL": ledger, "RECONCILE_IN_WEB": in_web, "WEB_CONCURRENCY": 1}
        backstop = Backstop(tmp_path, stand_in.url, **told, **settings)
        made.append(backstop)
        web = backstop.start_web()
        teller = web if in_web else backstop.start_reconciler()
        wait_until(is_configured)
        return backstop, teller

    yield start
    for backstop in made:
        backstop.__exit__(None, None, None)


def told(sink: Sink) -> Counter[str]:
    """Return how often each task was told, after checking the signatures."""
    for request in sink.received:
        Webhook(SECRET).verify(request.body, request.headers)
    return Counter(json.loads(request.body)["data"]["task"]["id"] for request in sink.received)


def kept(status: str) -> set[str]:
    with database.connection_context():
        return {forward.task_id for forward in Forward.select().where(Forward.status == status)}


def leased() -> int:
    with database.connection_context():
        return Forward.select().where(Forward.leased_until.is_null(False)).count()


@EVERYWHERE
def test_results_are_told(start, sink, in_web):
    backstop, teller = start(in_web)
    ids = [f"t{number}" for number in range(30)]
    for task_id in ids:
        assert backstop.post_callback(body(task_id)).status == 200
    wait_until(lambda: kept("delivered") == set(ids))
    assert told(sink) == Counter(ids)
    assert backstop.stop(teller) == 0
    assert "Traceback" not in backstop.log("web")


def test_callbacks_are_answered_while_an_app_hangs_that_the_web_process_tells(start, sink):
    sink.always = hang()
    backstop, _ = start(True)
    backstop.post_callback(body("t0"))
    wait_until(lambda: sink.received)
    for number in range(1, 20):
        assert backstop.post_callback(body(f"t{number}")).status == 200
    with database.connection_context():
        assert Attempt.select().count() == 0  # the first one still waits
    sink.stopping.set()


@pytest.mark.parametrize(
    ("in_web", "number"), [(False, signal.SIGTERM), (False, signal.SIGINT), (True, signal.SIGTERM)]
)
def test_a_stop_awaits_the_attempts_in_flight_and_gives_the_rest_back(start, sink, in_web, number):
    may_answer = threading.Event()

    def answer_late(of: Sink, connection: Any) -> bool:
        may_answer.wait(30)
        return reply()(of, connection)

    sink.always = answer_late
    backstop, teller = start(in_web)
    ids = {f"t{number}" for number in range(3 * PER_HOST)}
    for task_id in sorted(ids):
        backstop.post_callback(body(task_id))
    wait_until(lambda: len(sink.received) == PER_HOST)
    teller.send_signal(number)
    name, said = ("web", "Handling signal") if in_web else ("reconcile", "Stopping")
    wait_until(lambda: said in backstop.log(name))
    may_answer.set()
    assert teller.wait(30) == 0
    in_flight = told(sink)
    assert kept("delivered") == set(in_flight)
    assert kept("pending") <= ids - set(in_flight)
    assert leased() == 0
    assert set(in_flight.values()) == {1}
    backstop.start_web() if in_web else backstop.start_reconciler()
    wait_until(lambda: kept("delivered") == ids)
    assert set(told(sink).values()) == {1}  # nothing was lost, and nothing told twice


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@EVERYWHERE
def test_a_stop_ends_an_attempt_that_hangs_and_notes_it(start, sink, in_web):
    sink.always = hang()
    backstop, teller = start(in_web)
    backstop.post_callback(body("t1"))
    wait_until(lambda: sink.received)
    assert backstop.stop(teller) == 0  # within 30 s
    assert leased() == 0
    with database.connection_context():
        forward = Forward.get()
        assert (forward.status, forward.attempts, forward.cause) == ("pending", 1, "no answer in time")
        assert Attempt.get().kind == "timeout"


@EVERYWHERE
def test_what_a_killed_process_had_is_told_by_another_after_the_lease(start, sink, in_web):
    sink.then(hang())
    backstop, teller = start(in_web)
    backstop.post_callback(body("t1"))
    wait_until(lambda: sink.received)
    children = psutil.Process(teller.pid).children()  # gunicorn's workers
    for process in (teller, *children):
        process.kill()
    psutil.wait_procs(children)
    teller.wait()
    with database.connection_context():
        assert Forward.get().leased_until is not None
        # As if the lease had lapsed.
        Forward.update(leased_until="2026-01-01", next_attempt_at="2026-01-01").execute()
    backstop.start_reconciler()
    wait_until(lambda: kept("delivered") == {"t1"})
    assert told(sink) == {"t1": 2}
    assert len({request.headers["webhook-id"] for request in sink.received}) == 1
