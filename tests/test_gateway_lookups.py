"""Look-ups through the gateway in real web processes, over real sockets."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3

from receiver.clock import utcnow
from tests.factories import finished_item, look_up, register, task
from tests.processes import API_KEY, Backstop
from tests.scripted import Connection, Received, Scripted

WORKERS = 2
Ask = Callable[..., Any]


def says(*items: dict[str, Any]) -> Callable[[Received, Connection], None]:
    """Return the script of an upstream that knows these tasks and no others."""
    known = {one["id"]: one for one in items}

    def answer(request: Received, connection: Connection) -> None:
        asked = request.json
        found = [known[task_id] for task_id in asked.get("ids", known) if task_id in known]
        is_batch = asked.get("action") == "retrieve_batch"
        connection.send_json({"items": found} if is_batch else known.get(asked.get("id"), {}))

    return answer


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def upstream(running: ExitStack) -> Scripted:
    return running.enter_context(Scripted())


@pytest.fixture
def ask(ledger: str, tmp_path: Path, upstream: Scripted, running: ExitStack) -> Ask:
    """Ask two web processes with no reconciler beside them, and return the JSON that they answer."""
    variables = {"DATABASE_URL": ledger, "WEB_CONCURRENCY": WORKERS}
    backstop = running.enter_context(Backstop(tmp_path, upstream.url, **variables))
    backstop.start_web()
    http = urllib3.PoolManager(maxsize=32, retries=False, timeout=30)
    running.callback(http.clear)

    def ask(**asked: Any) -> Any:
        headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
        url = f"{backstop.url}/midjourney/tasks"
        response = http.request("POST", url, body=json.dumps(asked), headers=headers)
        assert response.status == 200, response.data
        return response.json()

    return ask


def many_at_once(call: Callable[[int], Any], times: int) -> list[Any]:
    with ThreadPoolExecutor(20) as threads:
        return list(threads.map(call, range(times)))


def test_200_polls_of_settled_tasks_cost_upstream_nothing_even_while_it_is_away(ask, upstream):
    items = [finished_item(f"t{n}", extra=n) for n in range(10)]
    register(*(one["id"] for one in items), now=utcnow() - timedelta(minutes=5))
    look_up(items)
    answers = many_at_once(lambda n: ask(action="retrieve", id=f"t{n % 10}"), 200)
    assert [answer["extra"] for answer in answers] == [n % 10 for n in range(200)]
    assert upstream.received == []
    upstream.__exit__()
    answers = many_at_once(lambda n: ask(id=f"t{n % 10}"), 200)
    assert all(answer["response"]["success"] for answer in answers)
    batch = ask(action="retrieve_batch", ids=[f"t{n}" for n in range(10)])
    assert len(batch["items"]) == 10


def test_of_many_who_poll_an_open_task_one_has_upstream_asked(ask, upstream):
    ids = [f"t{n}" for n in range(20)]
    register(*ids, now=utcnow() - timedelta(minutes=5))
    upstream.answer = says(*(finished_item(task_id) for task_id in ids))
    assert ask(id="t0")["response"]["success"] is True
    # While another process asks about a task, it is what the ledger knows: running.
    answers = many_at_once(lambda n: ask(id=ids[n % 20]), 60)
    assert all(answer["response"] == {} or answer["response"]["success"] for answer in answers)
    assert all(ask(id=task_id)["response"]["success"] for task_id in ids)
    asked = [task_id for request in upstream.received for task_id in request.json["ids"]]
    assert sorted(asked) == sorted(ids)
    assert {task(task_id).lookup_count for task_id in ids} == {1}


def test_a_list_that_many_watch_is_asked_for_once_in_each_process(ask, upstream):
    upstream.answer = says(finished_item("t1"))
    answers = many_at_once(lambda _: ask(action="retrieve_batch", user_id="u", limit=5), 60)
    assert all([one["id"] for one in answer["items"]] == ["t1"] for answer in answers)
    assert len(upstream.received) <= WORKERS
