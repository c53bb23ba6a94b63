"""`mcp-midjourney`, unmodified, over stdio: each of its tools."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.conftest import Place
from tests.clients.mcp_session import McpSession
from tests.processes import wait_until

LINK = "https://example.com/a.jpg"
SUBMISSIONS: dict[str, dict[str, Any]] = {
    "midjourney_imagine": {"prompt": "a fox"},
    "midjourney_transform": {"image_id": "123456", "action": "upscale1"},
    "midjourney_blend": {"image_urls": [LINK, LINK]},
    "midjourney_with_reference": {"reference_image_url": LINK, "prompt": "a fox"},
    "midjourney_edit": {"image_url": LINK, "prompt": "more light"},
    "midjourney_generate_video": {"image_url": LINK, "prompt": "it moves"},
    "midjourney_extend_video": {"video_id": "123456", "prompt": "it goes on"},
}
AT_ONCE: dict[str, tuple[dict[str, Any], str]] = {
    "midjourney_describe": ({"image_url": LINK}, "descriptions"),
    "midjourney_shorten": ({"prompt": "a very long prompt"}, "prompts"),
    "midjourney_translate": ({"content": "你好"}, "content"),
    "midjourney_get_seed": ({"image_id": "123456"}, "seed"),
}
LOOKUPS = ("midjourney_get_task", "midjourney_get_tasks_batch")
OWN = ("midjourney_list_actions", "midjourney_get_prompt_guide", "midjourney_list_transform_actions")


@pytest.fixture(scope="module")
def session(place: Place) -> Iterator[McpSession]:
    with place.mcp() as session:
        yield session


def test_every_tool_is_tested(session: McpSession) -> None:
    assert sorted(session.tools()) == sorted([*SUBMISSIONS, *AT_ONCE, *LOOKUPS, *OWN])
    for tool in OWN:
        text, is_error = session.call(tool)
        assert text, tool
        assert not is_error, tool


@pytest.mark.parametrize("tool", SUBMISSIONS)
def test_it_submits_and_is_told_the_end(place: Place, session: McpSession, tool: str) -> None:
    text, is_error = session.call(tool, **SUBMISSIONS[tool])
    assert not is_error, text
    task_id = json.loads(text)["task_id"]
    assert json.loads(text)["mcp_async_submission"]["should_poll"]
    wait_until(lambda: place.upstream.truth()[task_id]["response"])
    told = wait_until(lambda: ended(session, task_id))
    assert told["response"] == place.upstream.truth()[task_id]["response"]
    batch, is_error = session.call("midjourney_get_tasks_batch", task_ids=[task_id])
    assert not is_error, batch
    assert f"=== Task: {task_id} ===" in batch
    assert "Success: True" in batch


def ended(session: McpSession, task_id: str) -> Any:
    text, is_error = session.call("midjourney_get_task", task_id=task_id)
    assert not is_error, text
    told = json.loads(text)
    return told if told["mcp_task_polling"]["is_complete"] else None


@pytest.mark.parametrize("tool", AT_ONCE)
def test_it_is_answered_at_once(place: Place, session: McpSession, tool: str) -> None:
    place.upstream.change(work=(60.0, 60.0))
    arguments, key = AT_ONCE[tool]
    text, is_error = session.call(tool, **arguments)
    assert not is_error, text
    assert json.loads(text)[key]


def test_a_synchronous_submission_is_answered_with_its_result(place: Place, session: McpSession) -> None:
    text, is_error = session.call("midjourney_imagine", prompt="now", **{"async": False})
    assert not is_error, text
    assert json.loads(text)["progress"] == 100
    assert json.loads(text)["image_url"]


def test_it_lists_recent_tasks(place: Place, session: McpSession) -> None:
    text, _ = session.call("midjourney_imagine", prompt="listed")
    task_id = json.loads(text)["task_id"]
    listed, is_error = session.call("midjourney_get_tasks_batch", limit=50)
    assert not is_error, listed
    assert f"=== Task: {task_id} ===" in listed


def test_nothing_is_paid_twice(place: Place) -> None:
    paid = [one["task_id"] for one in place.upstream.paid()]
    assert len(paid) == len(set(paid)) > 0
