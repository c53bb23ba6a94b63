"""What upstream's own answers do to its clients, and what Backstop answers instead."""

import json
from collections.abc import Iterator

import pytest

from tests.clients.conftest import FOREVER, Place
from tests.clients.mcp_session import McpSession

# The forms of a running task that mislead a client: `midjourney-cli tasks`, MCP, the SDK.
MISLED = {
    "empty": (False, False, False),
    "null": (True, True, False),
    "absent": (False, False, True),
    "success": (False, True, False),
    "partial": (False, True, True),
}


@pytest.fixture(scope="module")
def session(place: Place) -> Iterator[McpSession]:
    with place.mcp() as session:
        yield session


@pytest.fixture
def running_task(place: Place, form: str) -> str:
    place.upstream.change(work=FOREVER, running=form)
    # A callback URL of the caller's own stands in the item's request.
    hook = "http://127.0.0.1:9/hook"
    return str(place.json("midjourney-cli", "imagine", "a fox", "--callback-url", hook)["task_id"])


def is_misled(place: Place, form: str, client: int) -> bool:
    return not place.is_gateway and MISLED[form][client]


@pytest.mark.parametrize("form", MISLED)
def test_the_command_line_prints_running_tasks(place: Place, running_task: str, form: str) -> None:
    done = place.run("midjourney-cli", "tasks", running_task)
    assert (done.code != 0) == ("AttributeError" in done.err) == is_misled(place, form, 0), done
    if form == "partial":
        assert ("/images/tmp/" in done.out) != place.is_gateway, done


@pytest.mark.parametrize("form", MISLED)
def test_mcp_goes_on_asking_about_a_running_task(
    place: Place, session: McpSession, running_task: str, form: str
) -> None:
    text, is_error = session.call("midjourney_get_task", task_id=running_task)
    polls = not is_error and json.loads(text)["mcp_task_polling"]["recommended_action"] == "poll"
    assert polls != is_misled(place, form, 1), text
    batch, is_error = session.call("midjourney_get_tasks_batch", task_ids=[running_task])
    assert is_error == (not place.is_gateway and form == "null"), batch
    if place.is_gateway:
        assert "Success: False" in batch


@pytest.mark.parametrize("form", MISLED)
def test_the_sdk_takes_no_running_task_for_finished(place: Place, running_task: str, form: str) -> None:
    (found,) = place.sdk(("tasks.get", {"task_id": running_task, "service": "midjourney"}))
    # A word such as "generating" beside a missing response would tell the SDK better.
    has_word = form == "absent" and "state" in found["returned"]
    assert (found["status"] != "") == (is_misled(place, form, 2) and not has_word), found


@pytest.mark.parametrize("form", ["empty"])
def test_a_batch_has_no_error_beside_its_items(
    place: Place, session: McpSession, running_task: str, form: str
) -> None:
    (item,) = place.upstream.records.find([running_task])
    batch = {"items": [item], "count": 1, "error": None}
    place.upstream.respond_next(200, {"Content-Type": "application/json"}, json.dumps(batch).encode())
    text, is_error = session.call("midjourney_get_tasks_batch", task_ids=[running_task])
    place.upstream.lookups.forget_scripted()
    assert is_error != place.is_gateway, text


@pytest.mark.parametrize("asked", ["known", "unknown"])
@pytest.mark.parametrize("form", ["empty"])
def test_an_error_is_always_an_object(
    place: Place, session: McpSession, running_task: str, form: str, asked: str
) -> None:
    place.upstream.change(rate_bare=1.0)
    text, is_error = session.call(
        "midjourney_get_task", task_id=running_task if asked == "known" else "nobody-knows-it"
    )
    assert ("'str' object has no attribute 'get'" in text) != place.is_gateway, text
    if not is_error:
        assert json.loads(text)["mcp_task_polling"]["recommended_action"] == "poll"


def test_an_unknown_id_is_no_error(place: Place, session: McpSession) -> None:
    assert place.json("midjourney-cli", "task", "nobody-knows-it") == {}
    printed = place.run("midjourney-cli", "tasks", "nobody-knows-it")
    assert (printed.code, "No data available" in printed.out) == (0, True), printed
    text, is_error = session.call("midjourney_get_task", task_id="nobody-knows-it")
    assert not is_error, text
    (found,) = place.sdk(("tasks.get", {"task_id": "nobody-knows-it", "service": "midjourney"}))
    assert (found["returned"], found["status"]) == ({}, "")


def test_an_upstream_without_an_answer_is_an_error_object_too(place: Place) -> None:
    """A page of HTML is no error that clients can read."""
    place.upstream.change(rate_502=1.0)
    (found,) = place.sdk(("tasks.get", {"task_id": "nobody-knows-it", "service": "midjourney"}))
    place.upstream.change(rate_502=0.0)
    assert ("<html>" in found["message"]) != place.is_gateway, found
