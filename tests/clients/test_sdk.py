"""The SDK `acedatacloud`, unmodified. It submits again by itself where an answer is lost."""

import pytest

from tests.clients.conftest import Place

CHAT = {"model": "gpt-5.2", "messages": [{"role": "user", "content": "hello"}]}
QUICK = {"poll_interval": 0.2, "max_wait": 20.0}


def test_it_submits_and_waits(place: Place) -> None:
    (song, image, video) = place.sdk(
        ("audio.generate", {"prompt": "a song", "async_": True, "wait": True, **QUICK}),
        ("images.generate", {"prompt": "a fox", "provider": "flux", "async_": True, "wait": True, **QUICK}),
        (
            "video.generate",
            {"prompt": "it moves", "provider": "seedance", "async_": True, "wait": True, **QUICK},
        ),
    )
    assert len(song["returned"]["response"]["data"]) == 2
    assert image["returned"]["response"]["data"][0]["image_url"]
    assert video["returned"]["response"]["data"]["video_url"]


def test_it_is_answered_with_the_result(place: Place) -> None:
    (song, video) = place.sdk(
        ("audio.generate", {"prompt": "a song"}),
        ("video.generate", {"prompt": "it moves", "provider": "veo"}),
    )
    assert [one["state"] for one in song["returned"]["data"]] == ["succeeded", "succeeded"]
    assert video["returned"]["data"][0]["video_url"]


def test_it_waits_for_a_midjourney_task(place: Place) -> None:
    task_id = place.json("midjourney-cli", "imagine", "a fox")["task_id"]
    (found,) = place.sdk(("tasks.wait", {"task_id": task_id, "service": "midjourney", **QUICK}))
    assert found["status"] == "succeeded"
    assert found["urls"][0] == f"{place.upstream.url}/images/{task_id}.png"


def test_it_is_told_of_failures(place: Place) -> None:
    place.upstream.change(failing=1.0)
    task_id = place.json("midjourney-cli", "imagine", "a fox")["task_id"]
    (found,) = place.sdk(("tasks.wait", {"task_id": task_id, "service": "midjourney", **QUICK}))
    assert found["status"] == "failed"


def test_it_chats_and_streams(place: Place) -> None:
    (whole, streamed) = place.sdk(
        ("openai.chat.completions.create", CHAT),
        ("openai.chat.completions.create", {**CHAT, "stream": True}),
    )
    said = "".join(event["choices"][0]["delta"]["content"] for event in streamed["returned"]["events"])
    assert said == whole["returned"]["choices"][0]["message"]["content"]


def test_it_maps_errors_by_their_code(place: Place) -> None:
    moderated = b'{"error": {"code": "forbidden", "message": "moderated"}, "trace_id": "t"}'
    place.upstream.respond_next_submission(403, {"Content-Type": "application/json"}, moderated)
    (refused, unknown) = place.sdk(
        ("images.generate", {"prompt": "a fox", "provider": "flux"}),
        ("images.generate", {"prompt": "a fox", "provider": "nothing"}),
    )
    assert (refused["raised"], "moderated" in refused["message"]) == ("ModerationError", True), refused
    assert "There is nothing at /nothing/images" in unknown["message"]


@pytest.mark.parametrize("fault", ["submit_cut", "submit_500", "submit_504"])
def test_what_it_submits_again_is_not_paid_again(place: Place, fault: str) -> None:
    """Directly it pays three times: it takes a lost answer for a lost submission."""
    place.upstream.change(**{fault: 1.0})
    asked = {"prompt": f"once, {fault}", "provider": "flux", "async_": True}
    (outcome,) = place.sdk(("images.generate", asked))
    place.upstream.change(**{fault: 0.0})
    paid = [one for one in place.upstream.paid() if one["prompt"] == asked["prompt"]]
    if place.is_gateway:
        assert [one["task_id"] for one in paid] == [outcome["task_id"]], (outcome, paid)
    else:
        assert len(paid) == 3
        assert "raised" in outcome
