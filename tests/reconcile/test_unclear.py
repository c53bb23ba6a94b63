"""What the reconciler finds out about submissions whose answer was lost."""

from datetime import timedelta

import pytest

from receiver.clock import to_unix
from receiver.ledger import pauses, submissions
from receiver.ledger.models import Submission
from receiver.ledger.paces import Paces
from receiver.ledger.submissions import Asked
from receiver.ledger.unclear import unclear_facts
from receiver.upstream import services
from receiver.upstream.client import Upstream
from receiver.upstream.traces import MOST_TRACES
from reconcile.calls import Caller, call_threads
from reconcile.rate_limit import RateLimiter
from reconcile.unclear import UnclearSubmissions
from tests.clocks import VirtualClock
from tests.factories import GRACE, body, finished_item, record, register, task
from tests.scripted import Scripted

MINUTE = timedelta(minutes=1)
SINGLE = next(name for name, one in services.SERVICES.items() if one.lookups is services.Lookups.SINGLE)


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def upstream():
    with Scripted(lambda _, connection: connection.send_json({"items": [], "count": 0})) as server:
        yield server


@pytest.fixture
def unclear(ledger, upstream, clock, stop):
    caller = Caller(Upstream(upstream.url, "token", 1), call_threads(1), RateLimiter(0, clock), clock)
    return UnclearSubmissions(caller, Paces(GRACE), "settled", stop)


@pytest.fixture
def submit(ledger, clock):
    """Begins a submission whose answer is lost: submit("trace", key="k")."""

    def begin(trace_id="own", service=services.DEFAULT.name, key=None):
        asked = Asked("web", service, "imagine", trace_id, trace_id.encode(), key, "https://app/hook")
        begun = submissions.begin(asked, clock.now())
        submissions.note_unclear(begun.submission, clock.now())
        return begun

    return begin


def test_a_submission_that_upstream_knows_is_registered(unclear, submit, upstream):
    submit("own", key="k")
    upstream.answer = lambda _, connection: connection.send_json(
        {"items": [finished_item(trace_id="own"), finished_item("t2", trace_id="another")]}
    )
    unclear.look()
    assert (task().trace_id, task().api_key, task().callback_url) == ("own", "web", "https://app/hook")
    assert (Submission.get().task_id, Submission.get().told_at) == ("t1", None)
    asked = [request.json["action"] for request in upstream.received]
    assert set(asked) == {"retrieve_batch"}


def test_a_callback_tells_too_and_upstream_is_not_asked(unclear, submit, upstream):
    submit("own")
    record(body("t1", trace_id="own"))
    unclear.look()
    assert Submission.get().task_id == "t1"
    assert upstream.received == []


def test_one_whose_task_is_known_under_another_service_is_found_too(unclear, submit, upstream, clock):
    submit("own")
    register("t1", service="suno")
    upstream.answer = lambda _, connection: connection.send_json({"items": [finished_item(trace_id="own")]})
    unclear.look()
    assert (Submission.get().task_id, Submission.get().told_at) == ("t1", None)
    assert unclear_facts(clock.now()).count == 0


def look_after(unclear, clock, minutes):
    """Let time pass between two looks of a process that goes on looking."""
    unclear.look()
    clock.wait(minutes * 60)
    unclear.look()


def test_after_ten_minutes_without_a_trace_the_key_is_free(unclear, submit, clock):
    first = submit("own", key="k")
    look_after(unclear, clock, 9)
    assert unclear_facts(clock.now()).count == 1
    look_after(unclear, clock, 1)
    assert unclear_facts(clock.now()).count == 0
    again = submit("own", key="k")
    assert again.state is submissions.State.NEW
    assert again.submission.id != first.submission.id


@pytest.mark.parametrize("behind", [timedelta(days=2500), timedelta(0)])
def test_a_wrong_clock_ends_no_submission_that_is_in_flight(unclear, submit, clock, behind):
    """It was dated by a clock that was behind, or is looked for by one that is ahead."""
    clock.ahead = -behind
    submit("own", key="k")
    clock.ahead += timedelta(days=2500)
    look_after(unclear, clock, 7)
    assert unclear_facts(clock.now()).count == 1
    look_after(unclear, clock, 1)
    assert unclear_facts(clock.now()).count == 0


def test_one_that_was_sent_in_the_future_ends_ten_minutes_after_the_clock_is_right(unclear, submit, clock):
    clock.ahead += timedelta(days=2)
    submit("own", key="k")
    clock.ahead -= timedelta(days=2)
    assert unclear_facts(clock.now()).count == 1
    look_after(unclear, clock, 11)
    assert unclear_facts(clock.now()).count == 0


@pytest.mark.parametrize("is_of_another", [False, True])
def test_before_one_ends_an_older_task_counts_too_unless_another_submission_made_it(
    unclear, submit, clock, upstream, is_of_another
):
    """The clock was ahead when it was sent."""
    clock.ahead += 15 * MINUTE
    submit("own", key="k")
    clock.ahead -= 15 * MINUTE
    older = finished_item(trace_id="own", created_at=to_unix(clock.now()))
    upstream.answer = lambda _, connection: connection.send_json({"items": [older]})
    if is_of_another:
        another = submit("own", key="another").submission
        submissions.note_task(another, older["id"], clock.now())
    look_after(unclear, clock, 26)
    mine = Submission.get(Submission.repeat_key.is_null() if is_of_another else Submission.repeat_key == "k")
    assert mine.task_id == (None if is_of_another else older["id"])
    assert (mine.ended_at is not None) == is_of_another


@pytest.mark.parametrize("problem", ["error", "pause"])
def test_an_upstream_that_cannot_be_asked_shows_nothing(unclear, submit, clock, upstream, problem):
    submit("own")
    if problem == "error":
        upstream.answer = lambda _, connection: connection.send_json({}, 500)
    else:
        pauses.stop_asking("no balance", clock.now(), account=True, retry_after=None)
    look_after(unclear, clock, 60)
    assert unclear_facts(clock.now()).count == 1


def test_many_of_a_service_that_is_paused_hide_none_of_another(unclear, submit, clock, upstream, monkeypatch):
    monkeypatch.setattr("receiver.ledger.unclear._MOST_LOOKED_FOR", 2)
    for number in range(3):
        submit(f"suno-{number}", service="suno")
    pauses.stop_asking("disabled", clock.now(), account=True, service="suno")
    clock.ahead += MINUTE
    submit("own")
    upstream.answer = lambda _, connection: connection.send_json({"items": [finished_item(trace_id="own")]})
    unclear.look()
    assert task().trace_id == "own"
    assert unclear_facts(clock.now()).count == 3


@pytest.fixture
def paced(ledger, upstream, stop):
    """Makes one call a second under a virtual clock, with a submission whose answer is lost long ago."""
    clock = VirtualClock()
    asked = Asked("web", services.DEFAULT.name, "imagine", "own", b"own", "k", "https://app/hook")
    submissions.note_unclear(submissions.begin(asked, clock.now()).submission, clock.now())
    clock.ahead += 60 * MINUTE
    caller = Caller(Upstream(upstream.url, "token", 1), call_threads(1), RateLimiter(1, clock), clock)
    return UnclearSubmissions(caller, Paces(GRACE), "settled", stop), clock


def test_each_call_takes_a_place_of_its_own_in_the_rate(paced, upstream):
    unclear, clock = paced
    moments = []

    def answer(_, connection):
        moments.append(clock.monotonic())
        connection.send_json({"items": [], "count": 0})

    upstream.answer = answer
    look_after(unclear, clock, 10)
    first, second = moments[-2:]
    assert second - first >= 1
    assert unclear_facts(clock.now()).count == 0


def test_a_service_that_fails_keeps_no_other_from_being_asked(paced, upstream):
    unclear, clock = paced
    asked = Asked("web", "suno", "audios", "other", b"other", "k2", "https://app/hook")
    submissions.note_unclear(submissions.begin(asked, clock.now()).submission, clock.now())
    fails = f"/{services.DEFAULT.name}/"

    def answer(request, connection):
        if request.target.startswith(fails):
            connection.send_json({}, 500)
        else:
            connection.send_json({"items": [finished_item(trace_id="other")]})

    upstream.answer = answer
    unclear.look()
    assert task().trace_id == "other"


def test_each_of_very_many_is_asked_about_in_one_look(paced, upstream):
    unclear, clock = paced
    for number in range(MOST_TRACES):
        asked = Asked("web", services.DEFAULT.name, "imagine", f"n{number}", b"%d" % number, f"k{number}")
        submissions.note_unclear(submissions.begin(asked, clock.now()).submission, clock.now())
    upstream.answer = lambda _, connection: connection.send_json({"items": [], "count": 0})
    unclear.look()
    asked_about = [trace for request in upstream.received for trace in request.json.get("trace_ids", [])]
    assert sorted(asked_about) == sorted(["own", *(f"n{number}" for number in range(MOST_TRACES))])


def test_a_stop_between_two_calls_ends_no_submission(paced, upstream, stop, caplog):
    unclear, clock = paced
    unclear.look()
    clock.wait(600)

    def answer(_, connection):
        stop.set()
        connection.send_json({"items": [], "count": 0})

    upstream.answer = answer
    asked = len(upstream.received)
    unclear.look()
    assert len(upstream.received) == asked + 1
    assert unclear_facts(clock.now()).count == 1
    assert caplog.text == ""  # upstream did answer


def test_what_upstream_cannot_be_asked_about_waits_a_day_for_its_callback(unclear, submit, clock, upstream):
    submit("own", service=SINGLE)
    clock.ahead += 60 * MINUTE
    unclear.look()
    assert (unclear_facts(clock.now()).count, upstream.received) == (1, [])
    look_after(unclear, clock, 24 * 60)
    assert unclear_facts(clock.now()).count == 0


def test_one_whose_process_died_in_flight_becomes_unclear(unclear, ledger, clock):
    submissions.begin(Asked("web", services.DEFAULT.name, "imagine", "own", b"x"), clock.now())
    assert unclear_facts(clock.now()).count == 0
    clock.ahead += submissions.IN_FLIGHT_FOR
    assert unclear_facts(clock.now()).count == 1


def test_after_a_stop_nothing_more_is_asked(unclear, submit, upstream, stop, clock):
    def answer(request, connection):
        if request.json["action"] != "retrieve_batch" or "trace_ids" not in request.json:
            stop.set()
        connection.send_json({"items": [], "count": 0})

    upstream.answer = answer
    submit("own")
    submit("other", service="suno")
    unclear.look()
    assert len({request.target for request in upstream.received}) == 1
    assert unclear_facts(clock.now()).count == 2
