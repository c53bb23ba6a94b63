"""`midjourney-cli`, unmodified: each of its commands that calls upstream."""

from typing import Any

import pytest

from tests.clients.conftest import Place
from tests.processes import wait_until

LINK = "https://example.com/a.jpg"
SUBMISSIONS = {
    "imagine": ("imagine", ("a fox",)),
    "transform": ("imagine", ("123456", "upscale1")),
    "blend": ("imagine", (LINK, LINK)),
    "edit": ("edits", (LINK, "more light")),
    "video": ("videos", ("it moves", "--image-url", LINK)),
    "extend-video": ("videos", ("123456", "it goes on")),
}


def finished(place: Place, task_id: str) -> Any:
    """Wait until upstream has finished a task; return its item as `task` prints it."""
    wait_until(lambda: place.upstream.truth()[task_id]["response"])
    return wait_until(lambda: finished_item(place, task_id))


def finished_item(place: Place, task_id: str) -> Any:
    item = place.json("midjourney-cli", "task", task_id)
    return item if (item.get("response") or {}).get("progress") == 100 else None


@pytest.mark.parametrize("command", SUBMISSIONS)
def test_it_submits_and_finds_its_task(place: Place, command: str) -> None:
    type_, arguments = SUBMISSIONS[command]
    submitted = place.json("midjourney-cli", command, *arguments)
    item = finished(place, submitted["task_id"])
    assert (item["id"], item["type"]) == (submitted["task_id"], type_)
    assert item["response"] == place.upstream.truth()[item["id"]]["response"]
    assert "/callbacks/" not in str(item), "a callback URL of the gateway was shown"


def test_it_is_told_of_failures(place: Place) -> None:
    place.upstream.change(failing=1.0)
    task_id = place.json("midjourney-cli", "imagine", "a fox")["task_id"]
    wait_until(lambda: place.upstream.truth()[task_id]["response"])
    item = wait_until(
        lambda: (item := place.json("midjourney-cli", "task", task_id)).get("response") and item
    )
    assert item["response"]["error"]["code"]


def test_it_finds_tasks_by_trace_id(place: Place) -> None:
    submitted = place.json("midjourney-cli", "imagine", "a fox")
    found = place.json("midjourney-cli", "task", "--trace-id", submitted["trace_id"])
    assert found["id"] == submitted["task_id"]
    batch = place.json("midjourney-cli", "tasks", "--trace-ids", submitted["trace_id"])
    assert [item["id"] for item in batch["items"]] == [submitted["task_id"]]


def test_it_prints_a_batch(place: Place) -> None:
    ids = [place.json("midjourney-cli", "imagine", "a fox")["task_id"] for _ in range(2)]
    for task_id in ids:
        finished(place, task_id)
    done = place.run("midjourney-cli", "tasks", *ids, "--limit", "5")
    assert done.code == 0
    assert done.out.count("Image URL") == 2
    assert all(task_id in done.out for task_id in ids)


def test_it_waits_for_a_task(place: Place) -> None:
    """With upstream itself `wait` never ends: it looks for the result where upstream does not put it."""
    task_id = place.json("midjourney-cli", "imagine", "a fox")["task_id"]
    limit = "20" if place.is_gateway else "2"
    done = place.run("midjourney-cli", "wait", task_id, "--interval", "1", "--timeout", limit)
    assert ("completed" in done.out, done.code) == ((True, 0) if place.is_gateway else (False, 1)), done


@pytest.mark.parametrize("place", ["gateway"], indirect=True)
def test_it_waits_for_a_video_and_for_a_failure(place: Place) -> None:
    video = place.json("midjourney-cli", "video", "it moves", "--image-url", LINK)["task_id"]
    place.upstream.change(failing=1.0)
    failing = place.json("midjourney-cli", "imagine", "a fox")["task_id"]
    shown = place.run("midjourney-cli", "wait", video, "--interval", "1", "--timeout", "20")
    assert (shown.code, "Video Urls" in shown.out) == (0, True), shown
    failed = place.run("midjourney-cli", "wait", failing, "--interval", "1", "--timeout", "20")
    assert (failed.code, f"Task {failing} failed" in failed.out) == (1, True), failed


def test_its_short_questions_are_answered_at_once(place: Place) -> None:
    place.upstream.change(work=(60.0, 60.0))
    described = place.run("midjourney-cli", "describe", LINK)
    assert (described.code, "--ar 75:44" in described.out) == (0, True), described
    translated = place.run("midjourney-cli", "translate", "你好")
    assert (translated.code, "In English: 你好" in translated.out) == (0, True), translated
    seed = place.run("midjourney-cli", "seed", "123456")
    assert (seed.code, "1515630083539206144" in seed.out) == (0, True), seed
    sent = [
        call for call in place.upstream.submitted if call.path.endswith(("describe", "translate", "seed"))
    ]
    assert not any(call.body.keys() & {"callback_url", "async"} for call in sent)


def test_it_says_why_a_submission_was_refused(place: Place) -> None:
    error = b'{"error": {"code": "bad_request", "message": "prompt is too long"}, "trace_id": "t"}'
    json_type = {"Content-Type": "application/json"}
    place.upstream.respond_next_submission(400, json_type, error)
    refused = place.run("midjourney-cli", "imagine", "a fox")
    assert (refused.code, "prompt is too long" in refused.out) == (1, True), refused
    place.upstream.respond_next_submission(403, json_type, error)
    assert "Access denied" in place.run("midjourney-cli", "imagine", "a fox").out
    stranger = place.run("midjourney-cli", "imagine", "a fox", token="wrong")
    assert (stranger.code, "Invalid API token" in stranger.out) == (1, True), stranger


def test_nothing_is_paid_twice(place: Place) -> None:
    paid = [one["task_id"] for one in place.upstream.paid()]
    assert len(paid) == len(set(paid)) > 0
