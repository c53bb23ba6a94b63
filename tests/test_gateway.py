"""The gateway in real processes: nothing is paid twice, and slow requests delay nobody."""

import json
import random
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import urllib3

from receiver.ledger.engine.db import init_database
from receiver.ledger.models import Submission, Task, database
from tests.factories import body
from tests.processes import API_KEY, Backstop, wait_until
from tests.scripted import Scripted

SUBMISSIONS, CUT = 2000, 0.1
HEADERS = {"Authorization": f"Bearer {API_KEY}"}


class Paying:
    """An upstream that counts what it is paid for, and cuts some of its answers. It may call back."""

    def __init__(self, cut: float, called_back: float) -> None:
        self.paid: Counter[str] = Counter()
        self.cut = 0
        self._share, self._called_back = cut, called_back
        self._by_trace: dict[str, str] = {}
        self._random = random.Random(7)
        self._lock = threading.Lock()
        self._http = urllib3.PoolManager(maxsize=8, retries=False, timeout=30)
        self._callbacks = ThreadPoolExecutor(4)

    def answer(self, request, connection):
        asked = request.json
        if request.target.endswith("/tasks"):
            traces = asked.get("trace_ids", [])
            items = [{"id": self._by_trace[t], "trace_id": t} for t in traces if t in self._by_trace]
            connection.send_json({"items": items, "count": len(items)})
            return
        task_id = str(uuid.uuid4())
        with self._lock:
            self.paid[asked["prompt"]] += 1
            self._by_trace[asked["trace_id"]] = task_id
            is_cut = self._random.random() < self._share
            self.cut += is_cut
            calls_back = self._random.random() < self._called_back
        if calls_back:
            result = body(task_id, trace_id=asked["trace_id"])
            self._callbacks.submit(self._http.request, "POST", asked["callback_url"], body=result)
        if is_cut:
            connection.cut()
        else:
            connection.send_json({"task_id": task_id})


@pytest.fixture
def deploy(ledger, tmp_path):
    """Starts a deployment before an upstream: deploy(upstream, WEB_CONCURRENCY=2)."""
    made: list[Backstop] = []

    def start(upstream, **variables):
        made.append(Backstop(tmp_path, upstream.url, **{"DATABASE_URL": ledger} | variables))
        made[-1].application = "tests.quick_app:app"
        made[-1].start_web()
        return made[-1]

    yield start
    for backstop in made:
        backstop.__exit__(None, None, None)


def submit_until_it_is_known(http, url, number):
    """Submit as a client does that retries with one Idempotency-Key, and return the task's id."""
    headers = HEADERS | {"Idempotency-Key": f"order-{number}", "Content-Type": "application/json"}
    asked = json.dumps({"prompt": f"order {number}", "async": True}).encode()
    for _ in range(20):
        answer = http.request("POST", f"{url}/midjourney/imagine", body=asked, headers=headers)
        if answer.status == 200:
            return answer.json()["task_id"]
        assert answer.status in {409, 429, 500, 502, 503, 504}, answer.data
        time.sleep(0.2)
    raise AssertionError(f"order {number} is not known")


def test_nothing_is_paid_twice_where_upstreams_answers_are_cut(deploy):
    paying = Paying(CUT, called_back=0.5)
    with Scripted(paying.answer) as upstream, ThreadPoolExecutor(32) as threads:
        backstop = deploy(upstream)
        http = urllib3.PoolManager(maxsize=32, retries=False, timeout=60)
        tasks = list(
            threads.map(lambda n: submit_until_it_is_known(http, backstop.url, n), range(SUBMISSIONS))
        )
    assert paying.cut > SUBMISSIONS * CUT / 2
    assert len(paying.paid) == SUBMISSIONS
    assert set(paying.paid.values()) == {1}
    assert len(set(tasks)) == SUBMISSIONS
    init_database(backstop.database_url)
    with database.connection_context():
        assert {task.id for task in Task.select(Task.id).where(Task.registered_at.is_null(False))} == set(
            tasks
        )
        assert Submission.select().where(Submission.task_id.is_null()).count() == 0


def test_slow_requests_that_are_many_let_callbacks_pages_and_health_checks_through(deploy):
    goes_on = threading.Event()

    def answer(_, connection):
        goes_on.wait(60)
        connection.send_json({"seed": "1"})

    with Scripted(answer) as upstream, ThreadPoolExecutor(260) as threads:
        backstop = deploy(upstream, WEB_CONCURRENCY=1)
        http = urllib3.PoolManager(maxsize=300, retries=False, timeout=90)
        url = f"{backstop.url}/midjourney/seed"
        slow = [threads.submit(http.request, "POST", url, body=b"{}", headers=HEADERS) for _ in range(200)]
        wait_until(lambda: len(upstream.received) == 200)
        refused = http.request("POST", url, body=b"{}", headers=HEADERS)
        assert (refused.status, refused.json()["error"]["code"]) == (503, "busy")
        for number in range(50):
            began = time.monotonic()
            told = http.request("POST", backstop.callback_url, body=body(f"t{number}"))
            assert told.status == 200
            assert time.monotonic() - began < 30
        assert http.request("GET", f"{backstop.url}/healthz").status == 200
        assert http.request("GET", f"{backstop.url}/", headers=HEADERS).status == 200
        goes_on.set()
        assert {one.result().status for one in slow} == {200}
        assert len(upstream.received) == 200


def test_parts_of_a_stream_come_one_by_one(deploy):
    goes_on = threading.Event()

    def answer(_, connection):
        connection.begin_chunks(content_type="text/event-stream")
        connection.send_chunk(b"data: 1\n\n")
        goes_on.wait(30)
        connection.send_chunk(b"data: 2\n\n")
        connection.send_chunk(b"")

    with Scripted(answer) as upstream:
        url = f"{deploy(upstream).url}/glm/chat/completions"
        response = urllib3.request("POST", url, body=b"{}", headers=HEADERS, preload_content=False)
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.read1() == b"data: 1\n\n"
        goes_on.set()
        assert response.read1() == b"data: 2\n\n"
        assert response.read1() == b""


def test_an_answer_that_upstream_breaks_off_is_not_taken_for_a_whole_one(deploy):
    def answer(_, connection):
        connection.begin_chunks()
        connection.send_chunk(b"half")
        connection.cut()

    with Scripted(answer) as upstream, pytest.raises(urllib3.exceptions.ProtocolError):
        urllib3.request("GET", f"{deploy(upstream).url}/openai/models", headers=HEADERS, retries=False)


class Late:
    """An upstream that acknowledges at once. It calls back when it is told to."""

    def __init__(self) -> None:
        self.callback_urls: list[str] = []

    def answer(self, request, connection):
        if request.target.endswith("/tasks"):
            connection.send_json({"items": []})
        else:
            self.callback_urls.append(request.json["callback_url"])
            connection.send_json({"task_id": "t1"})

    def call_back(self):
        assert urllib3.request("POST", self.callback_urls[0], body=body("t1")).status == 200


def test_white_space_goes_ahead_of_a_synchronous_result(deploy):
    late = Late()
    with Scripted(late.answer) as upstream:
        url = f"{deploy(upstream).url}/midjourney/imagine"
        response = urllib3.request("POST", url, body=b"{}", headers=HEADERS, preload_content=False)
        assert (response.status, response.read1(1)) == (200, b" ")
        late.call_back()
        assert json.loads(response.read())["image_url"] == "https://x/1.png"


def test_the_result_is_kept_for_a_synchronous_caller_who_hangs_up(deploy):
    late = Late()
    with Scripted(late.answer) as upstream:
        backstop = deploy(upstream)
        url = f"{backstop.url}/midjourney/imagine"
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            urllib3.request("POST", url, body=b"{}", headers=HEADERS, timeout=0.3, retries=False)
        wait_until(lambda: late.callback_urls)
        late.call_back()
        wait_until(lambda: Task.get().registered_at)
        told = urllib3.request("GET", f"{backstop.url}/api/tasks/t1", headers=HEADERS).json()
        assert (told["status"], told["type"]) == ("succeeded", "imagine")


def test_a_synchronous_caller_who_hangs_up_and_submits_again_gets_the_same_task(deploy):
    late = Late()
    with Scripted(late.answer) as upstream:
        url = f"{deploy(upstream).url}/midjourney/imagine"
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            urllib3.request("POST", url, body=b"{}", headers=HEADERS, timeout=0.3, retries=False)
        wait_until(lambda: Submission.select().where(Submission.unclear_at.is_null(False)).exists())
        late.call_back()
        told = urllib3.request("POST", url, body=b"{}", headers=HEADERS, retries=False).json()
        assert (told["task_id"], told["image_url"]) == ("t1", "https://x/1.png")
        assert len(late.callback_urls) == 1


def test_an_asynchronous_caller_who_hangs_up_before_the_answer_and_submits_again_gets_the_same_task(deploy):
    late = Late()
    hung_up = threading.Event()

    def answer(request, connection):
        hung_up.wait(30)
        late.answer(request, connection)

    with Scripted(answer) as upstream:
        url = f"{deploy(upstream).url}/midjourney/imagine"
        asked = {"body": b'{"async": true}', "headers": HEADERS, "retries": False}
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            urllib3.request("POST", url, **asked, timeout=0.3)
        hung_up.set()
        wait_until(lambda: Submission.select().where(Submission.task_id == "t1").exists())
        assert urllib3.request("POST", url, **asked).json()["task_id"] == "t1"
        assert len(late.callback_urls) == 1


def test_a_worker_that_ends_answers_those_who_wait(deploy):
    late = Late()
    with Scripted(late.answer) as upstream:
        backstop = deploy(upstream)
        url = f"{backstop.url}/midjourney/imagine"
        response = urllib3.request("POST", url, body=b"{}", headers=HEADERS, preload_content=False)
        assert response.read1(1) == b" "
        backstop.processes[0].terminate()
        told = json.loads(response.read())
        assert (told["error"]["code"], told["task_id"]) == ("timeout", "t1")
