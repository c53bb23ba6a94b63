"""The stand-in for upstream keeps to upstream's contract, over real sockets."""

import ast
import email.utils
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3

from tests.upstream import Options, StandIn

QUICK = (0.01, 0.05)
FOREVER = (600.0, 600.0)
NOWHERE = "http://127.0.0.1:9/hook"
ROOT = Path(__file__).parent.parent


@dataclass
class Received:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Listener(ThreadingHTTPServer):
    """Receives callbacks; `/status/<n>` answers n, `/moved/<n>/<path>` redirects to the path with n."""

    # The default of 5 drops connections when many callbacks come at once.
    request_queue_size = 1024

    def __init__(self) -> None:
        self.received: list[Received] = []
        super().__init__(("127.0.0.1", 0), ListenerHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def by_task(self) -> dict[str, list[Any]]:
        tasks: dict[str, list[Any]] = {}
        for one in self.received:
            tasks.setdefault(one.body["task_id"], []).append(one.body)
        return tasks


class ListenerHandler(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.received.append(
            Received(self.command, self.path, headers, json.loads(body) if body else None)
        )
        if moved := re.fullmatch(r"/moved/(\d+)(/.+)", self.path):
            self.send_response(int(moved[1]))
            self.send_header("Location", moved[2])
        elif status := re.fullmatch(r"/status/(\d+)", self.path):
            self.send_response(int(status[1]))
        else:
            self.send_response(200)
        self.end_headers()

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as listening:
        yield listening
        listening.shutdown()


@pytest.fixture
def start() -> Iterator[Callable[..., StandIn]]:
    started: list[StandIn] = []

    def start_one(**options: Any) -> StandIn:
        stand_in = StandIn(Options(**{"work": QUICK, "latency": 0.0, **options}))
        started.append(stand_in)
        stand_in.start()
        return stand_in

    yield start_one
    for stand_in in started:
        stand_in.stop()


def call(
    upstream: StandIn,
    path: str,
    content: Any = None,
    *,
    token: str | None = "test-token",
    headers: dict[str, str] | None = None,
    timeout: float = 10,
) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=timeout)
    sent = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        body = None if content is None else json.dumps(content)
        connection.request("GET" if content is None else "POST", path, body, sent | (headers or {}))
        with connection.getresponse() as response:
            return Reply(response.status, dict(response.headers), response.read())
    finally:
        connection.close()


def look_up(upstream: StandIn, **question: Any) -> Reply:
    return call(upstream, "/midjourney/tasks", {"action": "retrieve_batch", **question})


def retrieve(upstream: StandIn, **question: Any) -> Any:
    return call(upstream, "/midjourney/tasks", {"action": "retrieve", **question}).json()


def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)


def submit_many(upstream: StandIn, number: int, callback_url: str = NOWHERE) -> list[str]:
    return [
        upstream.submit("imagine", {"prompt": "a cat", "callback_url": callback_url}) for _ in range(number)
    ]


# Submissions and callbacks


def test_it_answers_a_submission_at_once_and_posts_the_result_once(
    start: Callable[..., StandIn], listener: Listener
) -> None:
    upstream = start()
    reply = call(upstream, "/midjourney/imagine", {"prompt": "a cat", "callback_url": f"{listener.url}/hook"})
    assert reply.status == 200
    assert reply.json().keys() == {"task_id", "trace_id"}
    assert upstream.wait_idle()
    (callback,) = listener.received
    assert (callback.method, callback.path) == ("POST", "/hook")
    assert callback.headers["user-agent"].startswith("python-requests/")
    assert callback.headers["content-type"] == "application/json"
    assert callback.body["task_id"] == reply.json()["task_id"]
    assert callback.body["trace_id"] == reply.json()["trace_id"]
    assert callback.body["success"] is True
    assert callback.body["progress"] == 100
    assert len(callback.body["actions"]) == 9


def test_it_never_repeats_a_refused_callback(start: Callable[..., StandIn], listener: Listener) -> None:
    upstream = start()
    (task_id,) = submit_many(upstream, 1, f"{listener.url}/status/503")
    assert upstream.wait_idle()
    assert len(listener.received) == 1
    truth = upstream.truth()[task_id]
    assert truth["callback"] == "refused"
    assert [(one["kind"], one["http_status"]) for one in truth["callbacks"]] == [("final", 503)]
    assert upstream.stats()["callbacks_refused"] == 1


def test_it_drops_a_callback_nobody_listens_for(start: Callable[..., StandIn]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    upstream = start()
    urls = [f"http://127.0.0.1:{port}/", "not a url", "http://127.0.0.1:99999/", "ftp://127.0.0.1/"]
    ids = [upstream.submit("imagine", {"callback_url": url}) for url in urls]
    assert upstream.wait_idle()
    for task_id in ids:
        truth = upstream.truth()[task_id]
        assert (truth["status"], truth["callback"]) == ("succeeded", "refused")
        assert [one["http_status"] for one in truth["callbacks"]] == [None]
        assert truth["callbacks"][0]["error"]


@pytest.mark.parametrize(
    ("status", "method"), [(307, "POST"), (308, "POST"), (301, "GET"), (302, "GET"), (303, "GET")]
)
def test_it_follows_redirects_as_requests_does(
    start: Callable[..., StandIn], listener: Listener, status: int, method: str
) -> None:
    upstream = start()
    submit_many(upstream, 1, f"{listener.url}/moved/{status}/hook")
    assert upstream.wait_idle()
    first, second = listener.received
    assert (second.method, second.path) == (method, "/hook")
    assert second.body == (first.body if method == "POST" else None)
    assert ("content-type" in second.headers) is (method == "POST")


def test_it_gives_up_on_endless_redirects(start: Callable[..., StandIn], listener: Listener) -> None:
    upstream = start()
    (task_id,) = submit_many(upstream, 1, f"{listener.url}/moved/307" + "/moved/307" * 40 + "/hook")
    assert upstream.wait_idle()
    assert len(listener.received) == 31
    assert upstream.truth()[task_id]["callback"] == "refused"


def test_it_keeps_the_callers_trace_id(start: Callable[..., StandIn], listener: Listener) -> None:
    upstream = start()
    request = {"prompt": "a cat", "callback_url": listener.url, "trace_id": "order-7"}
    accepted = call(upstream, "/midjourney/imagine", request).json()
    assert accepted["trace_id"] == "order-7"
    assert upstream.wait_idle()
    assert listener.received[0].body["trace_id"] == "order-7"
    found = retrieve(upstream, trace_id="order-7")
    assert (found["id"], found["trace_id"], found["request"]) == (accepted["task_id"], "order-7", request)
    batch = look_up(upstream, trace_ids=["order-7", "order-8"]).json()
    assert [item["id"] for item in batch["items"]] == [accepted["task_id"]]


def test_it_never_calls_back_for_lost_tasks(start: Callable[..., StandIn], listener: Listener) -> None:
    upstream = start(lost=1.0, progress=1.0, duplicated=1.0, disordered=1.0)
    ids = submit_many(upstream, 20, listener.url)
    assert upstream.wait_idle()
    assert listener.received == []
    assert {upstream.truth()[task_id]["callback"] for task_id in ids} == {"lost"}
    assert upstream.stats()["callbacks_lost"] == 20
    assert look_up(upstream, ids=ids, limit=50).json()["count"] == 20


def test_it_loses_about_the_share_asked_for(start: Callable[..., StandIn], listener: Listener) -> None:
    upstream = start(lost=0.3)
    ids = submit_many(upstream, 300, listener.url)
    assert upstream.wait_idle()
    lost = {task_id for task_id, truth in upstream.truth().items() if truth["callback"] == "lost"}
    assert 60 < len(lost) < 120
    assert listener.by_task().keys() == set(ids) - lost
    assert all(len(bodies) == 1 for bodies in listener.by_task().values())


def test_it_sends_duplicates_with_the_same_body(start: Callable[..., StandIn], listener: Listener) -> None:
    upstream = start(duplicated=1.0)
    (task_id,) = submit_many(upstream, 1, listener.url)
    assert upstream.wait_idle()
    first, second = listener.by_task()[task_id]
    assert first == second
    assert [one["kind"] for one in upstream.truth()[task_id]["callbacks"]] == ["final", "duplicate"]


@pytest.mark.parametrize("work", [QUICK, (0.0, 0.0)])
def test_it_sends_stale_progress_after_the_result(
    start: Callable[..., StandIn], listener: Listener, work: tuple[float, float]
) -> None:
    upstream = start(disordered=1.0, progress=1.0, duplicated=1.0, work=work)
    ids = submit_many(upstream, 10, listener.url)
    assert upstream.wait_idle()
    for task_id in ids:
        assert [body["progress"] for body in listener.by_task()[task_id]] == [25, 100, 60, 100]


def test_it_sends_progress_to_callers_that_stream(start: Callable[..., StandIn], listener: Listener) -> None:
    upstream = start()
    request = {"prompt": "a cat", "callback_url": listener.url}
    for headers in ({"accept": "application/x-ndjson"}, {"accept": "application/json"}):
        call(upstream, "/midjourney/imagine", request, headers=headers)
    assert upstream.wait_idle()
    streamed, plain = sorted(listener.by_task().values(), key=len, reverse=True)
    assert [body["progress"] for body in streamed] == [25, 60, 100]
    assert [body["progress"] for body in plain] == [100]
    for body in streamed[:2]:
        assert body["success"] is True
        assert body["actions"] == []
        assert body["image_url"] != streamed[2]["image_url"]
    kinds = [one["kind"] for one in upstream.truth()[streamed[0]["task_id"]]["callbacks"]]
    assert kinds == ["progress", "progress", "final"]


def test_it_shapes_each_type_like_upstream(start: Callable[..., StandIn], listener: Listener) -> None:
    upstream = start(progress=1.0, disordered=1.0)
    ids = {
        task_type: call(upstream, f"/midjourney/{task_type}", {"callback_url": listener.url}).json()[
            "task_id"
        ]
        for task_type in ("imagine", "edits", "videos", "describe")
    }
    assert upstream.wait_idle()
    bodies = {task_type: upstream.truth()[task_id]["response"] for task_type, task_id in ids.items()}
    assert {"image_url", "raw_image_url", "image_id", "trace_id", "actions"} <= bodies["imagine"].keys()
    assert len(bodies["edits"]["sub_image_urls"]) == 4
    assert len(bodies["videos"]["video_urls"]) == 4
    assert bodies["describe"].keys() == {"success", "task_id", "trace_id", "descriptions"}
    # A description has no progress, so it sends no progress callbacks either.
    assert listener.by_task()[ids["describe"]] == [bodies["describe"]]
    for task_type, task_id in ids.items():
        assert upstream.truth()[task_id]["type"] == task_type


def test_it_fails_tasks_with_structured_errors(start: Callable[..., StandIn], listener: Listener) -> None:
    upstream = start(failing=1.0)
    ids = submit_many(upstream, 30, listener.url)
    assert upstream.wait_idle()
    bodies = [body for (body,) in listener.by_task().values()]
    assert {body["task_id"] for body in bodies} == set(ids)
    assert all(body.keys() == {"success", "task_id", "trace_id", "error"} for body in bodies)
    assert all(body["success"] is False and body["error"]["message"] for body in bodies)
    assert len({body["error"]["code"] for body in bodies}) >= 3
    assert {truth["status"] for truth in upstream.truth().values()} == {"failed"}


def test_it_holds_a_submission_without_callback_and_keeps_no_record(start: Callable[..., StandIn]) -> None:
    upstream = start()
    reply = call(upstream, "/midjourney/imagine", {"prompt": "a cat"})
    assert reply.json()["progress"] == 100
    assert retrieve(upstream, id=reply.json()["task_id"]) == {}
    assert retrieve(upstream, trace_id=reply.json()["trace_id"]) == {}
    assert upstream.truth() == {}
    assert upstream.stats()["finished"] == 1
    upstream.change(failing=1.0)
    failed = call(upstream, "/midjourney/imagine", {"prompt": "a cat"})
    assert failed.status >= 400
    assert failed.json()["success"] is False


def test_it_keeps_a_record_for_async_without_callback(start: Callable[..., StandIn]) -> None:
    upstream = start()
    task_id = call(upstream, "/midjourney/imagine", {"prompt": "a cat", "async": True}).json()["task_id"]
    assert upstream.wait_idle()
    assert retrieve(upstream, id=task_id)["response"]["success"] is True
    assert upstream.truth()[task_id]["callback"] is None
    assert upstream.stats()["callbacks_sent"] == upstream.stats()["callbacks_lost"] == 0


# Look-ups


def test_it_returns_twelve_items_unless_a_limit_is_given(start: Callable[..., StandIn]) -> None:
    upstream = start(work=FOREVER)
    ids = submit_many(upstream, 50)
    reply = look_up(upstream, ids=ids).json()
    assert (len(reply["items"]), reply["count"]) == (12, 12)
    whole = look_up(upstream, ids=ids, limit=50).json()
    order = [item["id"] for item in whole["items"]]
    assert sorted(order) == sorted(ids)
    assert order != ids
    pages = [look_up(upstream, ids=ids, offset=offset).json()["items"] for offset in range(0, 60, 12)]
    assert [item["id"] for page in pages for item in page] == order


def test_it_leaves_unknown_ids_out(start: Callable[..., StandIn]) -> None:
    upstream = start()
    (known,) = submit_many(upstream, 1)
    reply = look_up(upstream, ids=["unknown-1", known, known, "unknown-2"]).json()
    assert [item["id"] for item in reply["items"]] == [known]
    assert reply["count"] == 1
    assert look_up(upstream, ids=["unknown-1"]).json() == {"items": [], "count": 0}
    assert retrieve(upstream, id="unknown-1") == {}


def test_it_lists_recent_tasks_newest_first(start: Callable[..., StandIn]) -> None:
    upstream = start(work=FOREVER)
    for number in range(20):
        planted = {
            "id": f"t{number}",
            "type": "imagine",
            "created_at": 1000.0 + number,
            "application_id": "a",
        }
        upstream.add_record(planted | ({"type": "videos", "application_id": "b"} if number % 5 == 0 else {}))
    (newest,) = submit_many(upstream, 1)

    def listed(**question: Any) -> list[str]:
        return [item["id"] for item in look_up(upstream, **question).json()["items"]]

    assert listed() == [newest, *(f"t{number}" for number in range(19, 8, -1))]
    assert listed(offset=12) == [f"t{number}" for number in range(8, -1, -1)]
    assert listed(limit=2, offset=1) == ["t19", "t18"]
    assert listed(type="videos") == ["t15", "t10", "t5", "t0"]
    assert listed(application_id="b", created_at_min=1005, created_at_max=1010.0) == ["t10", "t5"]
    own = look_up(upstream, ids=[newest]).json()["items"][0]["application_id"]
    assert listed(application_id=own) == [newest]


def test_it_shows_running_tasks_in_every_way_upstream_does(start: Callable[..., StandIn]) -> None:
    upstream = start(work=FOREVER)
    items = look_up(upstream, ids=submit_many(upstream, 100), limit=100).json()["items"]
    seen = {
        "absent" if "response" not in item else "null" if item["response"] is None else "partial"
        for item in items
    }
    assert seen == {"absent", "null", "partial"}
    assert {item.get("state") for item in items} == {None, "", "generating"}
    for item in items:
        assert "finished_at" not in item
        if item.get("response"):
            assert item["response"]["success"] is True
            assert 0 < item["response"]["progress"] < 100


def test_its_records_say_what_the_truth_says(start: Callable[..., StandIn], listener: Listener) -> None:
    upstream = start(failing=0.3, lost=0.3, progress=0.3, disordered=0.3, duplicated=0.3)
    ids = submit_many(upstream, 120, listener.url)
    assert upstream.wait_idle()
    truth = call(upstream, "/truth").json()
    assert truth == upstream.truth()
    items = look_up(upstream, ids=ids, limit=200).json()["items"]
    assert {item["id"]: item["response"] for item in items} == {
        task_id: one["response"] for task_id, one in truth.items()
    }
    for item in items:
        status = truth[item["id"]]["status"]
        assert item["response"]["success"] is (status == "succeeded")
        assert item.get("state") in (None, "", "finished" if status == "succeeded" else "failed")
        assert item["finished_at"] >= item["created_at"]
        assert item["request"]["callback_url"] == listener.url
        assert ("elapsed" in item) != ("duration" in item)
    finals = {task_id: [body for body in bodies if body.get("progress", 100) == 100 or "error" in body]
              for task_id, bodies in listener.by_task().items()}  # fmt: skip
    assert finals.keys() == {task_id for task_id, one in truth.items() if one["callback"] == "sent"}
    assert all(body == truth[task_id]["response"] for task_id, bodies in finals.items() for body in bodies)


def test_its_records_can_lag_behind_the_callback(start: Callable[..., StandIn], listener: Listener) -> None:
    upstream = start(record_lag=600.0)
    (slow,) = submit_many(upstream, 1, listener.url)
    eventually(lambda: upstream.truth()[slow]["callback"] == "sent")
    assert upstream.truth()[slow]["status"] == "succeeded"
    record = retrieve(upstream, id=slow)
    assert "finished_at" not in record
    assert (record.get("response") or {}).get("progress", 0) < 100
    upstream.change(record_lag=0.05)
    (quick,) = submit_many(upstream, 1, listener.url)
    eventually(lambda: "finished_at" in retrieve(upstream, id=quick))
    assert retrieve(upstream, id=quick)["response"]["progress"] == 100


def test_it_counts_what_look_ups_asked(start: Callable[..., StandIn]) -> None:
    upstream = start(work=FOREVER)
    one, two = submit_many(upstream, 2)
    look_up(upstream, ids=[one, two, "unknown"])
    upstream.change(rate_500=1.0)
    retrieve(upstream, id=one)
    truth, stats = upstream.truth(), call(upstream, "/stats").json()
    assert (truth[one]["lookups"], truth[two]["lookups"]) == (2, 1)
    assert (stats["lookup_calls"], stats["lookup_ids"], stats["max_ids"]) == (2, 4, 3)
    assert stats["lookup_statuses"] == {"200": 1, "500": 1}
    assert (stats["submitted"], stats["working"], stats["finished"], stats["failed"]) == (2, 2, 0, 0)
    assert [asked.body["action"] for asked in upstream.calls] == ["retrieve_batch", "retrieve"]
    assert upstream.calls[0].headers["authorization"] == "Bearer test-token"


def test_it_sees_how_many_look_ups_are_in_flight(start: Callable[..., StandIn]) -> None:
    upstream = start(latency=0.3)
    with ThreadPoolExecutor(4) as pool:
        assert {reply.status for reply in pool.map(lambda _: look_up(upstream, ids=[]), range(4))} == {200}
    assert upstream.stats()["max_in_flight"] == 4


def test_it_returns_planted_records_and_scripted_answers_verbatim(start: Callable[..., StandIn]) -> None:
    upstream = start()
    planted = {"id": "odd", "response": "not an object", "created_at": None, "trace_id": "t", "more": [1]}
    upstream.add_record(planted)
    assert retrieve(upstream, id="odd") == planted
    assert retrieve(upstream, trace_id="t") == planted
    upstream.respond_next(418, {"X-Odd": "yes"}, b"\xff not JSON", times=2)
    for _ in range(2):
        reply = look_up(upstream, ids=["odd"])
        assert (reply.status, reply.body, reply.headers["X-Odd"]) == (418, b"\xff not JSON", "yes")
    assert look_up(upstream, ids=["odd"]).json() == {"items": [planted], "count": 1}


@pytest.mark.parametrize(
    "question",
    [
        {"action": "guess"},
        {},
        [],
        {"action": "retrieve"},
        {"action": "retrieve_batch", "ids": "a"},
        {"action": "retrieve_batch", "ids": [1]},
        {"action": "retrieve_batch", "limit": 0},
        {"action": "retrieve_batch", "offset": -1},
        {"action": "retrieve_batch", "created_at_min": "now"},
    ],
)
def test_it_refuses_questions_it_does_not_understand(start: Callable[..., StandIn], question: Any) -> None:
    reply = call(start(), "/midjourney/tasks", question)
    assert (reply.status, reply.json()["error"]["code"]) == (400, "bad_request")


# Credentials and faults


@pytest.mark.parametrize("path", ["/midjourney/tasks", "/midjourney/imagine"])
def test_it_checks_the_token(start: Callable[..., StandIn], path: str) -> None:
    upstream = start()
    for token, status, code in ((None, 400, "no_token"), ("wrong", 401, "invalid_token")):
        reply = call(upstream, path, {"action": "retrieve_batch", "async": True}, token=token)
        assert (reply.status, reply.json()["success"], reply.json()["error"]["code"]) == (status, False, code)
    assert upstream.stats()["submitted"] == 0


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("invalid_token", 401),
        ("token_expired", 401),
        ("used_up", 403),
        ("disabled", 400),
        ("no_api", 404),
        ("token_mismatched", 400),
        ("no_token", 400),
        ("insufficient_balance", 402),
    ],
)
def test_it_answers_every_call_with_an_account_error(
    start: Callable[..., StandIn], code: str, status: int
) -> None:
    upstream = start(account_error=code)
    for path in ("/midjourney/tasks", "/midjourney/imagine"):
        reply = call(upstream, path, {"action": "retrieve_batch", "async": True})
        assert (reply.status, reply.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("rate", "status", "body"),
    [
        ("rate_429", 429, '"code": "too_many_requests"'),
        ("rate_500", 500, '"error": {"code": "api_error", "message": "fetch failed"}'),
        ("rate_502", 502, "<html>"),
        ("rate_bare", 500, '{"error": "upstream connect error", "trace_id": null}'),
    ],
)
def test_it_answers_with_the_fault_asked_for(
    start: Callable[..., StandIn], rate: str, status: int, body: str
) -> None:
    upstream = start(**{rate: 1.0})
    reply = look_up(upstream, ids=["a"])
    assert reply.status == status
    assert body in reply.body.decode()
    assert ("Retry-After" in reply.headers) is (status == 429)
    assert upstream.stats()["lookup_statuses"] == {str(status): 1}
    # Faults concern look-ups only.
    assert call(upstream, "/midjourney/imagine", {"async": True}).status == 200


def test_its_retry_after_is_seconds_or_a_date(start: Callable[..., StandIn]) -> None:
    upstream = start(rate_429=1.0)
    assert look_up(upstream).headers["Retry-After"] == "1"
    upstream.change(retry_after=7)
    assert look_up(upstream).headers["Retry-After"] == "7"
    upstream.change(retry_after="date")
    date = email.utils.parsedate_to_datetime(look_up(upstream).headers["Retry-After"])
    assert 0 < date.timestamp() - time.time() <= 3


def test_it_cuts_an_answer_in_the_middle(start: Callable[..., StandIn]) -> None:
    upstream = start(rate_cut=1.0)
    with pytest.raises(http.client.IncompleteRead) as cut:
        look_up(upstream, ids=submit_many(upstream, 1))
    assert len(cut.value.partial) > 0
    assert cut.value.expected is not None
    assert cut.value.expected - len(cut.value.partial) in (0, 1)


def test_it_hangs_then_closes_without_an_answer(start: Callable[..., StandIn]) -> None:
    upstream = start(rate_hang=1.0, hang_seconds=0.3)
    began = time.monotonic()
    with pytest.raises(http.client.RemoteDisconnected):
        look_up(upstream, ids=["a"])
    assert time.monotonic() - began >= 0.3
    assert upstream.stats()["lookup_statuses"] == {"hang": 1}


def test_it_stops_at_once_whatever_is_held(listener: Listener) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    upstream = StandIn(Options(work=QUICK, latency=0.0, rate_hang=1.0, hang_seconds=600))
    with silent, ThreadPoolExecutor(2) as pool:
        upstream.start()
        submit_many(upstream, 1, f"http://127.0.0.1:{silent.getsockname()[1]}/never-answers")
        eventually(lambda: upstream.stats()["callbacks_waiting"] == 1)
        upstream.change(work=FOREVER)
        held = [
            pool.submit(look_up, upstream, ids=["a"]),
            pool.submit(call, upstream, "/midjourney/imagine", {"prompt": "no callback"}),
        ]
        eventually(lambda: bool(upstream.calls) and upstream.stats()["submitted"] == 2)
        began = time.monotonic()
        upstream.stop()
        assert time.monotonic() - began < 60
        assert all(isinstance(one.exception(60), ConnectionError | http.client.HTTPException) for one in held)
        eventually(lambda: not any("sender" in thread.name for thread in threading.enumerate()))


def test_it_refuses_batches_with_a_poisoned_id(start: Callable[..., StandIn]) -> None:
    upstream = start(poison=("bad",))
    (good,) = submit_many(upstream, 1)
    reply = look_up(upstream, ids=[good, "bad"])
    assert (reply.status, reply.json()["error"]["code"]) == (400, "bad_request")
    assert look_up(upstream, ids=[good]).json()["count"] == 1


def test_the_code_of_a_poisoned_id_is_chosen(start: Callable[..., StandIn]) -> None:
    reply = look_up(start(poison=("bad",), poison_code="strange"), ids=["bad"])
    assert (reply.status, reply.json()["error"]["code"]) == (400, "strange")


def test_it_answers_as_the_services_differ(start: Callable[..., StandIn]) -> None:
    upstream = start(packed=1, empty_unknown=1, most_bytes=2000)
    ids = submit_many(upstream, 20)
    headers = {"Authorization": "Bearer test-token"}
    question = json.dumps({"action": "retrieve_batch", "ids": ["unknown"]}).encode()
    unknown = urllib3.request("POST", f"{upstream.url}/midjourney/tasks", body=question, headers=headers)
    assert (unknown.headers["Content-Encoding"], unknown.json()) == ("gzip", {})
    upstream.options.change({"packed": 0})
    assert look_up(upstream, ids=ids, limit=20).json()["error"]["code"] == "request_too_large"
    assert look_up(upstream, ids=ids[:1]).json()["count"] == 1


def test_no_action_means_retrieve(start: Callable[..., StandIn]) -> None:
    upstream = start()
    (task_id,) = submit_many(upstream, 1)
    for name in ("id", "task_id"):
        assert call(upstream, "/midjourney/tasks", {name: task_id}).json()["id"] == task_id


# Reproducibility


def history(seed: int, threads: int, **options: Any) -> dict[str, Any]:
    chosen = {"failing": 0.3, "lost": 0.3, "progress": 0.3, "disordered": 0.3, "duplicated": 0.3} | options
    with (
        Listener() as listening,
        StandIn(Options(seed=seed, work=(0.0, 0.02), latency=0.0, **chosen)) as upstream,
    ):
        with ThreadPoolExecutor(threads) as pool:
            ids = list(pool.map(lambda _: submit_many(upstream, 1, listening.url)[0], range(60)))
        assert upstream.wait_idle()
        truth = upstream.truth()
        batch = [item["id"] for item in look_up(upstream, ids=ids, limit=60).json()["items"]]
        listening.shutdown()
    told = {task_id: (one["response"], one["callback"], [sent["kind"] for sent in one["callbacks"]])
            for task_id, one in truth.items()}  # fmt: skip
    told_anywhere = json.dumps({"told": told, "batch": batch}).replace(upstream.url, "http://stand-in")
    return dict(json.loads(told_anywhere))


def test_it_repeats_itself_for_the_same_seed() -> None:
    first = history(seed=7, threads=1)
    assert history(seed=7, threads=8) == first
    assert history(seed=8, threads=1)["told"].keys().isdisjoint(first["told"])
    kinds = Counter(tuple(sent) for _, _, sent in first["told"].values())
    assert len(kinds) > 5, "the outcomes hardly vary"


def test_one_option_never_changes_what_another_decides() -> None:
    some, none = history(seed=7, threads=1)["told"], history(seed=7, threads=1, lost=0.0)["told"]
    assert {task_id: told[0] for task_id, told in some.items()} == {
        task_id: told[0] for task_id, told in none.items()
    }
    assert any(told[1] == "lost" for told in some.values())
    assert all(told == none[task_id] for task_id, told in some.items() if told[1] != "lost")


def test_its_faults_follow_the_number_of_the_call(start: Callable[..., StandIn]) -> None:
    rates = {"rate_429": 0.2, "rate_500": 0.2, "rate_502": 0.2}
    one, two = start(seed=3, **rates), start(seed=3, **rates)
    statuses = [look_up(one, ids=["a"]).status for _ in range(40)]
    assert [look_up(two, ids=["b"]).status for _ in range(40)] == statuses
    assert set(statuses) == {200, 429, 500, 502}


# Running it


def test_its_options_change_while_it_runs(start: Callable[..., StandIn]) -> None:
    upstream = start()
    reply = call(upstream, "/control", {"rate-500": 1, "poison": ["x"], "work": [0, 0.5]}, token=None)
    assert reply.status == 200
    assert reply.json()["rate_500"] == 1.0
    assert (upstream.options.poison, upstream.options.work) == (("x",), (0.0, 0.5))
    assert look_up(upstream).status == 500
    upstream.options.rate_500 = 0.0
    assert look_up(upstream).status == 200
    assert call(upstream, "/control").json()["rate_500"] == 0.0


@pytest.mark.parametrize(
    "changes",
    [
        {"lost": 0.5, "no_such_option": 1},
        {"lost": 0.5, "failing": 1.5},
        {"lost": 0.5, "failing": True},
        {"lost": 0.5, "work": [2, 1]},
        {"lost": 0.5, "work": 1},
        {"lost": 0.5, "retry_after": "later"},
        {"lost": 0.5, "account_error": "bankrupt"},
        {"lost": 0.5, "poison": "x"},
        {"lost": 0.5, "rate_429": 0.6, "rate_500": 0.6},
        {"lost": 0.5, "self": 1},
        ["lost"],
    ],
)
def test_it_refuses_bad_options_as_a_whole(start: Callable[..., StandIn], changes: Any) -> None:
    upstream = start()
    reply = call(upstream, "/control", changes)
    assert (reply.status, reply.json()["error"]["code"]) == (400, "bad_request")
    assert upstream.options.lost == 0.0


def test_it_serves_the_pictures_it_promises(start: Callable[..., StandIn], listener: Listener) -> None:
    upstream = start(work=FOREVER)
    (running,) = submit_many(upstream, 1)
    upstream.change(work=QUICK)
    upstream.submit("edits", {"callback_url": listener.url}, streaming=True)
    eventually(lambda: len(listener.received) == 3)
    early, _, final = (one.body for one in listener.received)
    for url in (final["image_url"], final["sub_image_urls"][3], f"/images/tmp/{running}-25.png"):
        picture = call(upstream, urlsplit(url).path)
        assert (picture.status, picture.headers["Content-Type"]) == (200, "image/png")
        assert picture.body.startswith(b"\x89PNG\r\n\x1a\n")
    # Upstream deletes the picture of a progress step.
    assert call(upstream, urlsplit(early["image_url"]).path).status == 404
    assert call(upstream, "/images/one.png").body != call(upstream, "/images/two.png").body


def test_it_serves_the_videos_it_promises_also_in_part(
    start: Callable[..., StandIn], listener: Listener
) -> None:
    upstream = start(work=QUICK)
    upstream.submit("videos", {"callback_url": listener.url})
    eventually(lambda: len(listener.received) == 1)
    for url in listener.received[0].body["video_urls"]:
        whole = call(upstream, urlsplit(url).path)
        assert (whole.status, whole.headers["Content-Type"]) == (200, "video/mp4")
        assert whole.body[4:8] == b"ftyp"
        size = len(whole.body)
        for wanted, first, last in (("0-1", 0, 1), ("10-", 10, size - 1), (f"5-{size + 9}", 5, size - 1)):
            part = call(upstream, urlsplit(url).path, headers={"Range": f"bytes={wanted}"})
            assert (part.status, part.body) == (206, whole.body[first : last + 1])
            assert part.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
        beyond = call(upstream, urlsplit(url).path, headers={"Range": f"bytes={size}-"})
        assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{size}")
    assert call(upstream, "/videos/t1/0_4.mp4").status == 404


def test_it_says_what_it_is_and_what_it_is_not(start: Callable[..., StandIn]) -> None:
    upstream = start()
    assert b"stand-in" in call(upstream, "/").body
    for path in ("/midjourney/nothing", "/nothing/tasks"):
        reply = call(upstream, path, {})
        assert (reply.status, reply.json()["error"]["code"]) == (404, "no_api")


def test_it_keeps_connections_open(start: Callable[..., StandIn]) -> None:
    upstream = start()
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=60)
    try:
        for number in range(3):
            connection.request("GET", "/")
            plug = connection.sock
            with connection.getresponse() as response:
                response.read()
            assert connection.sock is plug, f"closed after request {number}"
    finally:
        connection.close()


def test_it_copes_with_thousands_of_tasks(start: Callable[..., StandIn], listener: Listener) -> None:
    upstream = start(work=(0.0, 1.0), lost=0.9, record_lag=0.2)
    ids = submit_many(upstream, 5000, listener.url)
    assert upstream.wait_idle(60)
    assert (
        sum(
            look_up(upstream, ids=ids[at : at + 500], limit=500).json()["count"] for at in range(0, 5000, 500)
        )
        == 5000
    )
    assert (
        len(listener.received)
        == upstream.stats()["callbacks_sent"]
        == 5000 - upstream.stats()["callbacks_lost"]
    )


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_it_runs_from_the_command_line_until_a_signal(ending: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.upstream", "--port", "0", "--token", "t", "--rate-hang", "1",
               "--work", "0", "0", "--poison", "a", "--poison", "b", "--retry-after", "date"]  # fmt: skip
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said.endswith(", token: t\n")
            port = int(said.partition("127.0.0.1:")[2].partition(",")[0])
            with socket.create_connection(("127.0.0.1", port), timeout=60) as held:
                held.sendall(b"POST /midjourney/tasks HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer t\r\n"
                             b"Content-Length: 2\r\n\r\n{}")  # fmt: skip
                process.send_signal(ending)
                output = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, output) == (0, ("", ""))


def test_it_refuses_bad_options_on_the_command_line() -> None:
    command = [sys.executable, "-m", "tests.upstream", "--port", "0", "--lost", "2"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "lost" in ended.stderr


def test_it_shares_no_code_with_the_product() -> None:
    for source in (ROOT / "tests" / "upstream").glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.split(".")[0] for name in names} & {"receiver", "reconcile"}
