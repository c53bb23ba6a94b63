"""Submissions through the gateway: known before they are answered, and never paid twice."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest

from receiver.clock import to_unix, utcnow
from receiver.ledger import submissions
from receiver.ledger.models import LearnedPace, Submission, Task
from receiver.ledger.pace import Pace, TaskKind
from receiver.ledger.unclear import unclear_facts
from receiver.web.current import paces_of
from receiver.web.gateway import finder, results, sending
from receiver.web.lasting import lasting_of
from tests.conftest import API_KEY, CALLBACK_TOKEN
from tests.factories import TIMETABLE, body, failure_body, finished_item, register, task
from tests.processes import free_port, wait_until

TASK = {"task_id": "t1"}
ASYNC = {"prompt": "a fox", "async": True}


@contextmanager
def little_patience():
    """Wait for half a second for what does not come: for an answer, and for a submission that was lost."""
    find = finder.Finder.find
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sending, "ANSWER_WITHIN_SECONDS", 0.5)
        patch.setattr(finder.Finder, "find", lambda self, submission: find(self, submission, 0.5))
        yield


@pytest.fixture
def imagine(gateway, upstream, auth):
    """Submits: imagine({"prompt": "a fox"}, Idempotency_Key="k")."""
    usual = finder.finder_of(gateway.application)
    # It looks so often that no test waits for it.
    looking = finder.Finder(usual._upstream, look_every=0.02)
    gateway.application.extensions["backstop_finder"] = looking
    upstream.answer = lambda request, connection: connection.send_json(TASK)

    def ask(asked=ASYNC, path="/midjourney/imagine", environ=None, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        client = gateway.application.test_client()
        return client.post(path, json=asked, headers=auth | named, environ_overrides=environ)

    yield ask
    # A thread that still looks would open a connection after the ledger's are closed.
    wait_until(lambda: not any(way.is_looking for way in looking._ways.values()))


def submitted(upstream):
    return [request for request in upstream.received if not request.target.endswith("/tasks")]


def cut_then(upstream, *, items=()):
    """Let upstream accept submissions and cut the connection. Look-ups by trace id find `items`."""

    def answer(request, connection):
        if request.target.endswith("/tasks"):
            traces = request.json.get("trace_ids", [])
            told = [{**item, "trace_id": trace} for item, trace in zip(items, traces, strict=False)]
            connection.send_json({"items": told, "count": len(told)})
        else:
            connection.cut()

    upstream.answer = answer


def test_the_mode_of_the_request_tells_when_to_ask_first(imagine, gateway):
    for mode, length in (("turbo", 20.0), ("relax", 600.0)):
        weights = json.dumps(Pace().with_results([length] * 50).weights)
        kind = TaskKind("midjourney", "imagine", mode)._asdict()
        LearnedPace.create(**kind, weights=weights, learned_at=utcnow())
    paces_of(gateway.application).read()
    imagine({**ASYNC, "mode": "relax"})
    assert task().next_lookup_at > utcnow() + timedelta(seconds=400)


def test_an_asynchronous_submission_stays_as_it_is_and_its_task_is_known(imagine, upstream):
    upstream.answer = lambda _, connection: connection.send_json(
        {**TASK, "trace_id": "x"}, 201, x_trace_id="theirs"
    )
    answer = imagine({**ASYNC, "mode": "fast"})
    assert (answer.status_code, answer.json) == (201, {"task_id": "t1", "trace_id": "x"})
    assert answer.headers["x-trace-id"] == "theirs"
    (request,) = upstream.received
    sent = request.json
    assert sent.pop("callback_url") == (f"http://localhost/callbacks/{CALLBACK_TOKEN}/?service=midjourney")
    trace_id = sent.pop("trace_id")
    assert sent == {**ASYNC, "mode": "fast"}
    known = task()
    assert (known.service, known.type, known.trace_id) == ("midjourney", "imagine", trace_id)
    assert (known.api_key, known.callback_url) == ("default", None)
    assert known.registered_at
    assert known.submitted_at


def test_the_trace_id_is_written_before_the_request_goes_out(imagine, upstream):
    seen = []

    def look(request, connection):
        seen.extend(Submission.select().where(Submission.trace_id == request.json["trace_id"]))
        connection.send_json(TASK)

    upstream.answer = look
    imagine({**ASYNC, "trace_id": "own"})
    assert [one.trace_id for one in seen] == ["own"]


def test_the_callers_callback_url_is_served_by_forwarding(imagine, upstream):
    imagine({"prompt": "x", "callback_url": "https://app.example.com/hook"})
    assert task().callback_url == "https://app.example.com/hook"
    assert "app.example.com" not in upstream.received[0].json["callback_url"]


def test_a_callback_url_that_nobody_could_tell_goes_to_upstream(imagine, upstream):
    asked = {"prompt": "x", "callback_url": "https://app.example.com/hook"}
    imagine(asked, "/kickart/videos")
    assert upstream.received[0].json == asked
    imagine({"prompt": "x", "async": True}, "/kickart/videos")
    assert CALLBACK_TOKEN in upstream.received[1].json["callback_url"]


def test_our_own_callback_url_is_sent_as_it_is(imagine, upstream):
    url = f"http://localhost/callbacks/{CALLBACK_TOKEN}/order-7"
    imagine({"prompt": "x", "callback_url": url})
    assert upstream.received[0].json["callback_url"] == url
    assert task().callback_url is None


@pytest.mark.parametrize("url", ["ftp://x", 7, "https://x/\n", "https://[x/"])
def test_a_bad_callback_url_is_refused_before_anything_is_sent(imagine, upstream, url):
    answer = imagine({"prompt": "x", "callback_url": url})
    assert (answer.status_code, answer.json["error"]["code"]) == (400, "bad_request")
    assert upstream.received == []
    assert Submission.select().count() == 0


def test_a_path_that_cannot_be_sent_is_refused_before_anything_is_written(imagine, upstream):
    answer = imagine(environ={"RAW_URI": "/midjourney/imagine?x=\xfc"})
    assert (answer.status_code, answer.json["error"]["code"]) == (400, "bad_request")
    assert upstream.received == []
    assert Submission.select().count() == 0


def test_what_does_not_understand_a_callback_url_gets_none(imagine, upstream):
    imagine({"image_url": "https://x"}, path="/midjourney/describe")
    assert upstream.received[0].json == {"image_url": "https://x"}
    assert Submission.select().count() == 0


@pytest.mark.parametrize("status", [400, 403, 429])
def test_an_answer_that_shows_that_nothing_was_taken_comes_as_it_is_and_leaves_the_key_free(
    imagine, upstream, status
):
    error = {"error": {"code": "bad_request", "message": "no"}, "trace_id": "x"}
    upstream.answer = lambda _, connection: connection.send_json(error, status, Retry_After="9")
    answer = imagine(Idempotency_Key="k")
    assert (answer.status_code, answer.json, answer.headers["Retry-After"]) == (status, error, "9")
    assert (Submission.select().count(), Task.select().count()) == (0, 0)
    upstream.answer = lambda _, connection: connection.send_json(TASK)
    assert imagine(Idempotency_Key="k").json == TASK


def test_a_refused_connection_leaves_the_key_free(make_client, auth):
    client = make_client(ACEDATACLOUD_API_BASE_URL=f"http://127.0.0.1:{free_port()}")
    answer = client.post("/midjourney/imagine", json=ASYNC, headers=auth | {"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json["error"]["code"]) == (502, "api_error")
    assert Submission.select().count() == 0


class TestRepetitions:
    """The same request again."""

    @pytest.mark.parametrize("by", [{"Idempotency_Key": "k"}, {}])
    def test_the_same_key_or_trace_id_gets_the_same_task(self, imagine, upstream, by):
        asked = ASYNC if by else {**ASYNC, "trace_id": "own"}
        assert imagine(asked, **by).json["task_id"] == "t1"
        assert imagine(dict(reversed(asked.items())), **by).json["task_id"] == "t1"
        assert len(upstream.received) == 1

    def test_without_either_each_request_is_a_submission_of_its_own(self, imagine, upstream):
        imagine()
        imagine()
        assert len(upstream.received) == 2

    def test_the_same_key_with_another_body_is_refused(self, imagine, upstream):
        imagine(Idempotency_Key="k")
        answer = imagine({**ASYNC, "prompt": "two"}, Idempotency_Key="k")
        assert (answer.status_code, answer.json["error"]["code"]) == (422, "invalid_request")
        assert len(upstream.received) == 1

    def test_one_trace_id_may_serve_several_submissions(self, imagine, upstream):
        imagine({**ASYNC, "trace_id": "own"})
        imagine({"prompt": "b", "async": True, "trace_id": "own"})
        assert len(upstream.received) == 2

    def test_while_the_first_is_in_flight_it_is_refused(self, imagine, upstream):
        goes_on = threading.Event()

        def answer(_, connection):
            goes_on.wait(60)
            connection.send_json(TASK)

        upstream.answer = answer
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(imagine, Idempotency_Key="k")
            wait_until(lambda: upstream.received)
            second = imagine(Idempotency_Key="k")
            assert (second.status_code, second.json["error"]["code"]) == (409, "conflict")
            goes_on.set()
            assert first.result().json == TASK
        assert imagine(Idempotency_Key="k").json["task_id"] == "t1"
        assert len(upstream.received) == 1

    @pytest.mark.parametrize("key", ["", "x" * 256, "ü"])
    def test_a_key_that_cannot_be_kept_is_refused(self, imagine, upstream, key):
        assert imagine(Idempotency_Key=key).status_code == 400
        assert upstream.received == []


class TestLostAnswers:
    """Upstream has the submission, and its answer never came."""

    def test_it_is_found_by_its_trace_id_before_the_caller_is_answered(self, imagine, upstream):
        cut_then(upstream, items=[finished_item()])
        answer = imagine()
        assert (answer.status_code, answer.json["task_id"]) == (200, "t1")
        assert answer.json["trace_id"] == submitted(upstream)[0].json["trace_id"]
        assert task().trace_id == answer.json["trace_id"]
        assert len(submitted(upstream)) == 1

    def test_it_is_found_in_the_list(self, imagine, upstream):
        def answer(request, connection):
            if not request.target.endswith("/tasks"):
                connection.cut()
            elif "trace_ids" in request.json:
                connection.send_json({"items": [], "count": 0})
            else:
                asked = submitted(upstream)[0].json
                connection.send_json({"items": [finished_item(request=asked)], "count": 1})

        upstream.answer = answer
        assert imagine().json["task_id"] == "t1"

    def test_it_is_found_by_its_callback(self, imagine, upstream, gateway):
        def answer(request, connection):
            if request.target.endswith("/tasks"):
                connection.send_json({"items": []})
            else:
                trace_id = request.json["trace_id"]
                path = request.json["callback_url"].removeprefix("http://localhost")
                client = gateway.application.test_client()
                assert client.post(path, data=body("t1", trace_id=trace_id)).status_code == 200
                connection.cut()

        upstream.answer = answer
        assert imagine().json["task_id"] == "t1"

    def test_it_is_found_when_a_reconciler_finds_it_first(self, imagine, upstream):
        def answer(request, connection):
            if not request.target.endswith("/tasks"):
                connection.cut()
                return
            lost = Submission.get()
            submissions.accept(
                lost, "t1", utcnow(), timetable=TIMETABLE, forward_when="confirmed", is_told=False
            )
            connection.send_json({"items": [finished_item(trace_id=lost.trace_id)], "count": 1})

        upstream.answer = answer
        assert imagine().json.get("task_id") == "t1"
        upstream.answer = lambda _, connection: connection.send_json({"task_id": "t2"})
        assert imagine().json["task_id"] == "t2"  # who was told, and asks again, wants another one

    @pytest.mark.parametrize("how", ["cut", "hang", 500, 502, 503, "html"])
    def test_otherwise_it_is_unclear(self, imagine, upstream, how):
        def answer(request, connection):
            if request.target.endswith("/tasks"):
                connection.send_json({"items": []})
            elif how == "cut":
                connection.cut()
            elif how == "html":
                connection.send_bytes(b"<html>")
            elif how != "hang":
                connection.send_json({"error": {"code": "api_error"}}, how)

        upstream.answer = answer
        with little_patience():
            answer = imagine()
        assert (answer.status_code, answer.json["error"]["code"]) == (504, "timeout")
        assert answer.json["success"] is False
        assert answer.json["trace_id"] == submitted(upstream)[0].json["trace_id"]
        assert unclear_facts(utcnow()).count == 1

    @pytest.mark.parametrize(
        ("by", "more"), [({"Idempotency_Key": "k"}, {}), ({}, {"trace_id": "own"}), ({}, {})]
    )
    def test_repeating_it_submits_nothing(self, imagine, upstream, by, more):
        asked = ASYNC | more
        cut_then(upstream)
        with little_patience():
            assert [imagine(asked, **by).status_code for _ in range(3)] == [504, 504, 504]
        assert len(submitted(upstream)) == 1
        cut_then(upstream, items=[finished_item()])
        assert imagine(asked, **by).json["task_id"] == "t1"
        assert len(submitted(upstream)) == 1

    def test_found_between_two_requests_it_is_told_to_the_next_one(self, imagine, upstream, gateway):
        cut_then(upstream)
        with little_patience():
            assert imagine().status_code == 504
        trace_id = submitted(upstream)[0].json["trace_id"]
        gateway.post(f"/callbacks/{CALLBACK_TOKEN}", data=body("t1", trace_id=trace_id))
        assert imagine().json["task_id"] == "t1"
        upstream.answer = lambda _, connection: connection.send_json({"task_id": "t2"})
        assert imagine().json["task_id"] == "t2"  # who was told, and asks again, wants another one

    def test_an_older_task_with_the_same_trace_id_is_another(self, imagine, upstream):
        an_hour_ago = utcnow() - timedelta(hours=1)
        register("t0", trace_id="own", submitted_at=an_hour_ago, now=an_hour_ago)
        cut_then(upstream, items=[finished_item("t1", created_at=to_unix(an_hour_ago))])
        with little_patience():
            assert imagine({**ASYNC, "trace_id": "own"}).status_code == 504


class TestSynchronous:
    """Callers who wait for the result."""

    @pytest.fixture
    def call_back(self, gateway, upstream, monkeypatch):
        """Lets upstream call back once it has answered: call_back(payload). It calls `first` before."""

        def with_payload(payload, after=0.0, first=lambda: None):
            def answer(request, connection):
                connection.send_json(TASK)
                path = request.json["callback_url"].removeprefix("http://localhost")
                time.sleep(after)
                client = gateway.application.test_client()
                wait_until(lambda: Task.get_or_none(Task.id == "t1"))
                first()
                client.post(path, data=payload)

            upstream.answer = answer

        return with_payload

    def test_it_is_submitted_with_a_callback_url_and_answered_with_the_result(
        self, imagine, upstream, call_back
    ):
        call_back(body("t1"))
        answer = imagine({"prompt": "x", "async": False})
        assert answer.status_code == 200
        assert answer.json["image_url"] == "https://x/1.png"
        assert answer.json["trace_id"] == task().trace_id
        sent = upstream.received[0].json
        assert "async" not in sent
        assert sent["callback_url"].endswith("?service=midjourney")

    def test_a_failure_has_its_status(self, imagine, call_back):
        call_back(failure_body("t1", "forbidden"))
        answer = imagine({"prompt": "x"})
        assert (answer.status_code, answer.json["error"]["code"]) == (403, "forbidden")

    def test_white_space_is_sent_ahead_of_a_late_result(self, imagine, call_back, monkeypatch):
        monkeypatch.setattr(results, "SPACE_EVERY_SECONDS", 0.05)
        monkeypatch.setattr(results, "_AT_LEAST_SECONDS", 0.05)
        call_back(failure_body("t1", "forbidden"), after=0.4)
        answer = imagine({"prompt": "x"})
        assert (answer.status_code, answer.mimetype) == (200, "application/json")
        assert answer.text.startswith("  ")
        assert answer.json["error"]["code"] == "forbidden"

    @pytest.mark.parametrize("is_late", [False, True])
    def test_a_caller_who_hangs_up_just_before_the_result_gets_it_when_it_asks_again(
        self, imagine, upstream, call_back, monkeypatch, is_late
    ):
        if is_late:
            monkeypatch.setattr(results, "SPACE_EVERY_SECONDS", 0.05)
            monkeypatch.setattr(results, "_AT_LEAST_SECONDS", 0.05)
        ours, theirs = socket.socketpair()
        with ours:
            call_back(body("t1"), after=0.4 * is_late, first=theirs.close)
            assert imagine({"prompt": "x"}, environ={"gunicorn.socket": ours}).json["task_id"] == "t1"
        assert imagine({"prompt": "x"}).json["task_id"] == "t1"
        assert len(submitted(upstream)) == 1

    def test_errors_that_are_known_at_once_keep_their_status(self, imagine, upstream):
        upstream.answer = lambda _, connection: connection.send_json({"error": {"code": "used_up"}}, 403)
        assert imagine({"prompt": "x"}).status_code == 403

    def test_a_lost_answer_is_found_and_waited_for(self, imagine, upstream, gateway):
        def answer(request, connection):
            if request.target.endswith("/tasks"):
                connection.send_json({"items": []})
                return
            trace_id = request.json["trace_id"]
            path = request.json["callback_url"].removeprefix("http://localhost")
            gateway.application.test_client().post(path, data=body("t1", trace_id=trace_id))
            connection.cut()

        upstream.answer = answer
        assert imagine({"prompt": "x"}).json["image_url"] == "https://x/1.png"

    def test_repeating_it_waits_for_the_same_task(self, imagine, upstream, call_back):
        call_back(body("t1"))
        one, other = (imagine({"prompt": "x"}, Idempotency_Key="k").json for _ in range(2))
        assert one == other
        assert len(upstream.received) == 1

    def test_when_the_worker_ends_it_says_so(self, imagine, gateway):
        gateway.application.extensions["backstop_waiting"].end()
        answer = imagine({"prompt": "x"})
        assert answer.json["error"]["code"] == "timeout"
        assert answer.json["task_id"] == "t1"

    def test_an_upstream_that_answers_with_the_result_itself_is_believed(self, imagine, upstream):
        result = {"success": True, "task_id": "t1", "image_url": "https://x/1.png", "progress": 100}
        upstream.answer = lambda _, connection: connection.send_json(result)
        assert imagine({"prompt": "x"}).json == result
        assert (task().status, task().settled_by, task().next_lookup_at) == ("succeeded", "lookup", None)


class TestLines:
    """Callers who accept application/x-ndjson."""

    LINES = (body("t1", progress=40, actions=[]), body("t1", progress=100))

    def test_they_pass_through_and_the_last_one_settles_the_task(self, imagine, upstream):
        def answer(request, connection):
            connection.begin_chunks(content_type="application/x-ndjson")
            connection.send_chunk(self.LINES[0] + b"\n" + self.LINES[1][:10])
            wait_until(lambda: Task.get_or_none(Task.id == "t1"))  # known by the first line
            connection.send_chunk(self.LINES[1][10:])
            connection.send_chunk(b"")

        upstream.answer = answer
        answer = imagine({"prompt": "x"}, Accept="application/x-ndjson")
        assert answer.mimetype == "application/x-ndjson"
        assert answer.data == b"\n".join(self.LINES)
        assert "callback_url" not in upstream.received[0].json
        assert (task().status, task().settled_by) == ("succeeded", "lookup")
        assert Submission.get().task_id == "t1"

    def test_they_are_read_to_the_end_when_the_caller_hangs_up(self, imagine, upstream, gateway, auth):
        goes_on = threading.Event()

        def answer(request, connection):
            connection.begin_chunks(content_type="application/x-ndjson")
            connection.send_chunk(self.LINES[0] + b"\n")
            goes_on.wait(60)
            connection.send_chunk(self.LINES[1])
            connection.send_chunk(b"")

        upstream.answer = answer
        headers = auth | {"Accept": "application/x-ndjson"}
        response = gateway.post("/midjourney/imagine", json={}, headers=headers, buffered=False)
        assert next(iter(response.response)).startswith(b"{")
        response.close()
        lasting = lasting_of(gateway.application)
        assert lasting.count == 1  # it still takes a place
        goes_on.set()
        wait_until(lambda: task().status == "succeeded")
        wait_until(lambda: lasting.count == 0)

    def test_an_error_at_once_leaves_no_row(self, imagine, upstream):
        upstream.answer = lambda _, connection: connection.send_json({"error": {"code": "used_up"}}, 403)
        answer = imagine({"prompt": "x"}, Accept="application/x-ndjson")
        assert (answer.status_code, answer.json) == (403, {"error": {"code": "used_up"}})
        assert Submission.select().count() == 0

    @pytest.mark.parametrize("status", [None, 500])
    def test_without_a_line_it_is_unclear(self, imagine, upstream, status):
        cut_then(upstream)
        if status:
            upstream.answer = lambda _, connection: connection.send_json({"items": []}, status)
        with little_patience():
            assert imagine({"prompt": "x"}, Accept="application/x-ndjson").status_code == 504
        assert unclear_facts(utcnow()).count == 1


def test_it_waits_ten_minutes_for_a_lost_submission():
    assert timedelta(minutes=10) == submissions.UNCLEAR_FOR


def test_the_name_of_the_key_stands_on_the_task(make_client, upstream):
    client = make_client(ACEDATACLOUD_API_BASE_URL=upstream.url, API_KEY=f"web:{API_KEY}")
    upstream.answer = lambda _, connection: connection.send_json(TASK)
    client.post("/midjourney/imagine", json=ASYNC, headers={"Authorization": f"Bearer {API_KEY}"})
    assert task().api_key == "web"
    upstream.answer = lambda _, connection: connection.send_json({"task_id": "t2"})
    client.post("/midjourney/imagine", json=ASYNC, headers={"Authorization": "Bearer test-token"})
    assert task("t2").api_key == "upstream-token"
