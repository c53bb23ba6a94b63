"""`suno-cli`, `veo-cli`, `flux-cli` and `seedance-cli`, unmodified."""

from typing import Any

import pytest

from tests.clients.conftest import Place
from tests.processes import wait_until

# What each prints of its result, and where that stands in it.
GENERATE = {
    "suno-cli": ("suno", "audio_url"),
    "veo-cli": ("veo", "video_url"),
    "flux-cli": ("flux", "image_url"),
    "seedance-cli": ("seedance", "video_url"),
}
# Looks for a word where upstream puts none.
ENDLESS_WITH_UPSTREAM = {"veo-cli"}


@pytest.fixture(autouse=True)
def running(place: Place, usual_upstream: None) -> None:
    """Some of these take a partial result for the end: with upstream, and so through Backstop too."""
    place.upstream.change(running="empty")


def results(response: Any) -> list[Any]:
    data = response["data"]
    return data if isinstance(data, list) else [data]


@pytest.mark.parametrize("command", GENERATE)
def test_it_is_answered_with_the_result(place: Place, command: str) -> None:
    service, key = GENERATE[command]
    answer = place.json(command, "generate", f"{service} now")
    assert all(result[key] for result in results(answer))
    paid = [one for one in place.upstream.paid() if one["task_id"] == answer["task_id"]]
    assert [one["path"].split("/")[1] for one in paid] == [service]


@pytest.mark.parametrize("command", GENERATE)
def test_it_prints_the_result(place: Place, command: str) -> None:
    done = place.run(command, "generate", "a fox")
    assert (done.code, place.upstream.url in done.out) == (0, True), done


@pytest.mark.parametrize("command", GENERATE)
def test_it_submits_and_finds_its_task(place: Place, command: str) -> None:
    service, key = GENERATE[command]
    task_id = place.json(command, "generate", "a fox", "--async")["task_id"]
    wait_until(lambda: place.upstream.truth()[task_id]["response"])
    item = wait_until(lambda: (found := place.json(command, "task", task_id)).get("response") and found)
    assert item["id"] == task_id
    assert item["response"] == place.upstream.truth()[task_id]["response"]
    assert place.upstream.truth()[task_id]["service"] == service
    assert "/callbacks/" not in str(item), "a callback URL of the gateway was shown"
    batch = place.json(command, "tasks", task_id)
    assert [one["id"] for one in batch["items"]] == [task_id]
    assert all(result[key] for result in results(batch["items"][0]["response"]))
    printed = place.run(command, "tasks", task_id)
    assert (printed.code, task_id in printed.out) == (0, True), printed


@pytest.mark.parametrize("command", GENERATE)
def test_it_waits_for_a_task(place: Place, command: str) -> None:
    task_id = place.json(command, "generate", "a fox", "--async")["task_id"]
    ends = place.is_gateway or command not in ENDLESS_WITH_UPSTREAM
    limit = "20" if ends else "2"
    done = place.run(command, "wait", task_id, "--interval", "1", "--timeout", limit)
    assert (done.code == 0) == ends, done
    assert task_id in done.out


def test_a_task_that_failed_ends_the_waiting(place: Place) -> None:
    place.upstream.change(failing=1.0)
    for command in ("suno-cli", "flux-cli"):
        task_id = place.json(command, "generate", "a fox", "--async")["task_id"]
        done = place.run(command, "wait", task_id, "--interval", "1", "--timeout", "20")
        assert "Timeout" not in done.out, done


def test_lyrics_are_answered_at_once(place: Place) -> None:
    place.upstream.change(work=(60.0, 60.0))
    lyrics = place.json("suno-cli", "lyrics", "a song about a fox")
    assert lyrics["data"]["text"]
    assert place.json("suno-cli", "mp4", "audio-1")["data"]["video_url"]
    sent = [call for call in place.upstream.submitted if call.path in ("/suno/lyrics", "/suno/mp4")]
    assert not any(call.body.keys() & {"callback_url", "async"} for call in sent)


def test_what_is_read_is_relayed(place: Place) -> None:
    listed = place.run("suno-cli", "personas", "--user-id", "user-1")
    assert listed.code == 0, listed
    (call,) = [call for call in place.upstream.submitted if call.method == "GET"]
    assert call.path.startswith("/suno/persona?")
    assert "user_id=user-1" in call.path


def test_tasks_are_found_by_trace_id(place: Place) -> None:
    task_id = place.json("veo-cli", "generate", "a fox", "--async")["task_id"]
    trace_id = place.upstream.truth()[task_id]["trace_id"]
    assert place.json("veo-cli", "task", "--trace-id", trace_id)["id"] == task_id
    listed = place.json("veo-cli", "tasks", "--limit", "50")
    assert task_id in [item["id"] for item in listed["items"]]


def test_nothing_is_paid_twice(place: Place) -> None:
    paid = [one["task_id"] for one in place.upstream.paid()]
    assert len(paid) == len(set(paid)) > 0
