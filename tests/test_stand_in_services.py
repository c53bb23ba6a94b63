"""The stand-in for upstream knows several services, and loses answers of submissions that it took."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import urllib3
from urllib3.exceptions import HTTPError, ProtocolError

from tests.upstream import Options, StandIn
from tests.upstream.catalogue import OPERATIONS

TOKEN = {"Authorization": "Bearer test-token"}
TASKS = sorted(path for path, operation in OPERATIONS.items() if not operation.at_once)
AT_ONCE = sorted(path for path, operation in OPERATIONS.items() if operation.at_once)


@pytest.fixture
def upstream() -> Iterator[StandIn]:
    with StandIn(Options(work=(0.02, 0.05), latency=0.0, hang_seconds=0.2)) as stand_in:
        yield stand_in


class Hooks(ThreadingHTTPServer):
    """Keeps the bodies of callbacks."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        super().__init__(("127.0.0.1", 0), HooksHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class HooksHandler(BaseHTTPRequestHandler):
    server: Hooks

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    with Hooks() as listening:
        yield listening
        listening.shutdown()


def post(upstream: StandIn, path: str, body: Any, **headers: str) -> urllib3.BaseHTTPResponse:
    with urllib3.PoolManager(retries=False, timeout=60) as http:
        return http.request("POST", f"{upstream.url}{path}", json=body, headers=TOKEN | headers)


def retrieve(upstream: StandIn, service: str, **question: Any) -> Any:
    return post(upstream, f"/{service}/tasks", question).json()


@pytest.mark.parametrize("path", TASKS)
def test_it_calls_back_with_what_a_synchronous_answer_says(
    upstream: StandIn, hooks: Hooks, path: str
) -> None:
    accepted = post(upstream, path, {"prompt": "a", "callback_url": hooks.url})
    assert upstream.wait_idle()
    (called_back,) = hooks.bodies
    answered = post(upstream, path, {"prompt": "a"}).json()
    assert called_back["task_id"] == accepted.json()["task_id"]
    assert called_back["trace_id" if "trace_id" in called_back else "task_id"]
    assert answered.keys() == called_back.keys()
    assert answered["success"] is True


def test_each_service_has_an_envelope_of_its_own(upstream: StandIn) -> None:
    responses = {}
    for path in ("/suno/audios", "/veo/videos", "/flux/images", "/seedance/videos"):
        service = path.split("/")[1]
        task_id = post(upstream, path, {"async": True}).json()["task_id"]
        assert upstream.wait_idle()
        item = retrieve(upstream, service, action="retrieve", id=task_id)
        assert item["id"] == item["response"]["task_id"] == task_id
        assert ("finished_at" in item, "type" in item) == (service == "seedance", service != "flux")
        responses[service] = item["response"]["data"]
    assert [song["state"] for song in responses["suno"]] == ["succeeded", "succeeded"]
    assert {"audio_url", "video_url", "image_url", "lyric"} <= responses["suno"][0].keys()
    assert responses["veo"][0]["state"] == "succeeded"
    assert "state" not in responses["flux"][0]
    assert responses["seedance"]["status"] == "succeeded"
    assert responses["seedance"]["task_id"].startswith("cgt-")


def test_one_service_is_asked_about_one_task_a_time_and_says_404(upstream: StandIn) -> None:
    task_id = post(upstream, "/digital-human/videos", {"async": True}).json()["task_id"]
    assert task_id.startswith("task_")
    assert retrieve(upstream, "digital-human", task_id=task_id)["state"] == "processing"
    assert upstream.wait_idle()
    done = retrieve(upstream, "digital-human", task_id=task_id)
    assert (done["state"], done["task_id"]) == ("succeed", task_id)
    unknown = post(upstream, "/digital-human/tasks", {"task_id": "task_0"})
    assert (unknown.status, unknown.json()["error"]["code"]) == (404, "no_task")


def test_a_service_does_not_know_the_tasks_of_another(upstream: StandIn) -> None:
    task_id = post(upstream, "/suno/audios", {"async": True, "trace_id": "t"}).json()["task_id"]
    for question in ({"id": task_id}, {"trace_id": "t"}):
        assert retrieve(upstream, "suno", **question)["id"] == task_id
        assert retrieve(upstream, "veo", **question) == {}
    assert retrieve(upstream, "suno", action="retrieve_batch")["count"] == 1
    assert retrieve(upstream, "midjourney", action="retrieve_batch") == {"items": [], "count": 0}


def test_the_list_tells_the_total_and_a_task_can_be_deleted(upstream: StandIn) -> None:
    ids = [post(upstream, "/veo/videos", {"async": True, "user_id": "u"}).json()["task_id"] for _ in range(3)]
    page = retrieve(upstream, "veo", action="retrieve_batch", limit=2, user_id="u")
    assert (len(page["items"]), page["count"]) == (2, 3)
    assert retrieve(upstream, "veo", action="delete", id=ids[0]) == {"id": ids[0], "deleted": True}
    assert retrieve(upstream, "veo", action="delete", id=ids[0])["deleted"] is False
    assert retrieve(upstream, "veo", id=ids[0]) == {}


@pytest.mark.parametrize("form", ["null", "empty", "absent", "success", "partial"])
def test_the_form_of_a_running_task_can_be_chosen(upstream: StandIn, form: str) -> None:
    upstream.change(work=(60.0, 60.0), running=form)
    forms = {"null": None, "empty": {}, "absent": "absent"}
    for path in ("/midjourney/imagine", "/suno/audios", "/seedance/videos"):
        task_id = post(upstream, path, {"async": True}).json()["task_id"]
        response = retrieve(upstream, path.split("/")[1], id=task_id).get("response", "absent")
        assert response == forms[form] if form in forms else response["success"]
    assert retrieve(upstream, "seedance", id=task_id)["request"]["callback_url"] == "dummy"


@pytest.mark.parametrize("path", AT_ONCE)
def test_some_operations_are_answered_at_once(upstream: StandIn, path: str) -> None:
    upstream.change(work=(60.0, 60.0))
    answer = post(upstream, path, {"prompt": "p", "content": "c"})
    assert answer.status == 200
    assert answer.json().keys() & {"descriptions", "seed", "prompts", "content", "data"}
    (paid,) = upstream.paid()
    assert (paid["path"], paid["prompt"]) == (path, "p")
    assert upstream.truth() == {}


def test_it_names_a_trace_in_every_answer(upstream: StandIn) -> None:
    own = post(upstream, "/midjourney/imagine", {"async": True, "trace_id": "mine"})
    assert own.headers["x-trace-id"] == own.json()["trace_id"] == "mine"
    task_id = own.json()["task_id"]
    assert retrieve(upstream, "midjourney", trace_id="mine", id="another")["id"] == task_id
    for path in ("/midjourney/tasks", "/suno/lyrics", "/nothing/at-all", "/openai/chat/completions"):
        assert post(upstream, path, {}).headers["x-trace-id"]


def test_it_streams_lines_whose_last_is_the_result(upstream: StandIn) -> None:
    streamed = post(upstream, "/midjourney/imagine", {"prompt": "a"}, Accept="application/x-ndjson")
    lines = [json.loads(line) for line in streamed.data.splitlines()]
    assert [line["progress"] for line in lines] == [25, 60, 100]
    assert streamed.headers["content-type"] == "application/x-ndjson"
    assert streamed.headers["x-trace-id"] == lines[-1]["trace_id"]


def test_it_streams_a_chat_word_by_word(upstream: StandIn) -> None:
    upstream.change(chat_gap=0.1)
    with urllib3.PoolManager(retries=False, timeout=60) as http:
        url, chat = f"{upstream.url}/openai/chat/completions", {"stream": True}
        answer = http.request("POST", url, json=chat, headers=TOKEN, preload_content=False)
        parts = [(time.monotonic(), part) for part in answer.read_chunked()]
    assert all(part.startswith(b"data: ") for _, part in parts)
    assert parts[-1][1] == b"data: [DONE]\n\n"
    assert parts[-1][0] - parts[0][0] >= 0.3
    assert post(upstream, "/openai/chat/completions", {}).json()["choices"][0]["message"]["content"]


def test_it_answers_what_is_read_or_deleted(upstream: StandIn) -> None:
    with urllib3.PoolManager(retries=False, timeout=60) as http:
        models = http.request("GET", f"{upstream.url}/openai/models?limit=1", headers=TOKEN)
        assert models.json()["data"]
        assert http.request("GET", f"{upstream.url}/openai/models").json()["error"]["code"] == "no_token"
        gone = http.request("DELETE", f"{upstream.url}/openai/models/x", headers=TOKEN)
        assert (gone.status, gone.json()["error"]["code"]) == (404, "no_api")
    assert [(call.method, call.path) for call in upstream.submitted] == [
        ("GET", "/openai/models?limit=1"),
        ("GET", "/openai/models"),
        ("DELETE", "/openai/models/x"),
    ]


@pytest.mark.parametrize("fault", ["submit_cut", "submit_half", "submit_hang"])
def test_it_takes_a_submission_and_loses_the_answer(upstream: StandIn, fault: str) -> None:
    upstream.change(**{fault: 1.0})
    with pytest.raises((ProtocolError, HTTPError)):
        post(upstream, "/midjourney/imagine", {"async": True, "trace_id": "t", "prompt": "order 1"})
    assert [(one["trace_id"], one["prompt"]) for one in upstream.paid()] == [("t", "order 1")]
    (task,) = upstream.truth().values()
    assert (task["trace_id"], task["prompt"]) == ("t", "order 1")
    assert retrieve(upstream, "midjourney", trace_id="t")["trace_id"] == "t"


@pytest.mark.parametrize(("fault", "status"), [("submit_500", 500), ("submit_504", 504)])
def test_it_takes_a_submission_and_answers_with_an_error(upstream: StandIn, fault: str, status: int) -> None:
    upstream.change(**{fault: 1.0})
    # Without a callback URL too: the answer does not wait for the result.
    upstream.change(work=(60.0, 60.0))
    assert post(upstream, "/suno/audios", {"trace_id": "t"}).status == status
    assert post(upstream, "/suno/lyrics", {"trace_id": "t"}).status == status
    assert Counter(one["trace_id"] for one in upstream.paid()) == {"t": 2}


@pytest.mark.parametrize(("fault", "status"), [("submit_429", 429), ("submit_503", 503)])
def test_it_refuses_a_submission_and_takes_nothing(upstream: StandIn, fault: str, status: int) -> None:
    upstream.change(**{fault: 1.0})
    refused = post(upstream, "/midjourney/imagine", {"async": True})
    assert (refused.status, "Retry-After" in refused.headers) == (status, status == 429)
    assert refused.json()["error"]["code"]
    assert (upstream.paid(), upstream.truth()) == ([], {})


def test_a_refused_submission_is_called_back_about_all_the_same(upstream: StandIn, hooks: Hooks) -> None:
    upstream.change(submit_400=1.0)
    refused = post(upstream, "/midjourney/imagine", {"callback_url": hooks.url, "trace_id": "t"})
    assert (refused.status, refused.json()["trace_id"]) == (400, "t")
    assert "task_id" not in refused.json()
    assert upstream.wait_idle()
    (body,) = hooks.bodies
    assert (body["success"], body["trace_id"]) == (False, "t")
    assert retrieve(upstream, "midjourney", id=body["task_id"]) == {}
    assert (upstream.paid(), upstream.truth()) == ([], {})


def test_its_faults_on_submissions_add_up_to_one_at_most(upstream: StandIn) -> None:
    with pytest.raises(ValueError, match="more than 1"):
        upstream.change(submit_cut=0.7, submit_500=0.7)
    upstream.change(submit_cut=0.5, submit_429=0.5)
    answered = 0
    for _ in range(40):
        try:
            answered += post(upstream, "/midjourney/imagine", {"async": True}).status == 429
        except ProtocolError:
            answered += 0
    assert 0 < answered < 40
    assert len(upstream.paid()) == 40 - answered


def test_it_serves_the_songs_it_promises(upstream: StandIn) -> None:
    for song in post(upstream, "/suno/audios", {"prompt": "a"}).json()["data"]:
        heard = urllib3.request("GET", song["audio_url"], headers={"Range": "bytes=0-3"})
        assert (heard.status, heard.headers["content-type"], heard.data) == (
            206,
            "audio/mpeg",
            b"\xff\xfb\x90\x00",
        )
        for name in ("image_url", "video_url"):
            assert urllib3.request("GET", song[name]).status == 200


def test_a_scripted_answer_takes_nothing(upstream: StandIn) -> None:
    upstream.respond_next_submission(403, body=b'{"error": {"code": "forbidden", "message": "no"}}')
    assert post(upstream, "/midjourney/imagine", {"async": True}).status == 403
    assert upstream.paid() == []
    assert post(upstream, "/midjourney/imagine", {"async": True}).status == 200
    assert len(upstream.paid()) == 1
