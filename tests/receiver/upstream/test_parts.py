"""What a response holds for the customer, for the payloads of every service."""

import json
import re
from typing import Any

import pytest

from receiver.upstream.parts import Link, Part, Text, parts_of
from receiver.upstream.results import read_item
from receiver.upstream.verdicts import texts_in
from tests.factories import SAMPLES, sample

PAYLOADS = sorted(path.name for path in (SAMPLES / "services").glob("*.json"))
FINISHED = [
    name
    for name in PAYLOADS
    if re.search("_finished|_success.json|_response_2026|_poll_flat|_sync_answer", name)
    and "kling_lip" not in name
]


def read(name: str) -> tuple[Any, Any]:
    """Return the response and the request of a payload, as the ledger keeps them."""
    told = sample(f"services/{name}")
    result = read_item(told if {"id", "task_id", "task"} & told.keys() else {"id": "t1", **told})
    return json.loads(result.response or "{}"), json.loads(result.request or "{}")


def parts(name: str) -> tuple[Part, ...]:
    return parts_of(*read(name))


def links(name: str) -> list[tuple[str, str]]:
    return [(link.name, link.kind) for part in parts(name) for link in part.links]


@pytest.mark.parametrize("name", FINISHED)
def test_every_result_of_every_service_has_something_to_show_and_no_address_is_missing(name: str):
    response, request = read(name)
    found = parts_of(response, request)
    assert [part for part in found if part.links or part.texts]
    told = {text for text in texts_in(response) if re.fullmatch(r"https?://\S+", text)}
    assert {link.url for part in found for link in part.links} == told - set(texts_in(request))


def test_a_task_of_two_songs_has_two_parts():
    first, second = parts("suno_callback_success.json")
    assert first.title == second.title == "Holiday Wishes"
    assert first.texts == (Text("Lyric", ("[Verse]\nSnow is falling soft and white",)),)
    assert {(link.name, link.kind) for link in first.links} == {
        *(("image", "image"), ("audio", "audio"), ("video", "video"))
    }
    assert all("/b878a87b" in link.url or "_b878a87b" in link.url for link in second.links)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (
            "midjourney_item_finished_2024_sync_request.json",
            [("image", "image"), ("full-size image", "image")],
        ),
        ("luma_item_finished.json", [("video", "video"), ("thumbnail", "image")]),
        ("minimax_retrieve_finished.json", [("video", "video")]),
        ("maestro_item_finished.json", [("video", "video"), ("tarball", "file")]),
        ("digital-human_poll_flat.json", [("video", "video")]),
        ("webextrator_item_finished.json", [("final", "file")]),
        ("dreamina_item_finished.json", [("video", "video")]),  # the picture and the sound are its inputs
        ("seedance_item_finished.json", [("video", "video")]),
        ("flux_item_finished.json", [("image", "image")]),
    ],
)
def test_links_have_names_and_kinds(name: str, found: list[tuple[str, str]]):
    assert sorted(links(name)) == sorted(found)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("midjourney_sync_answer_describe.json", ["Descriptions"]),
        ("midjourney_sync_answer_shorten_2026-10.json", ["Prompts"]),
        ("midjourney_sync_answer_seed.json", ["Seed"]),
        ("midjourney_sync_answer_translate.json", ["Content"]),
        ("webextrator_item_finished.json", ["HTML", "Text"]),
    ],
)
def test_texts_are_parts_as_well(name: str, texts: list[str]):
    assert sorted(text.name for part in parts(name) for text in part.texts) == texts


@pytest.mark.parametrize(
    ("name", "address", "kind"),
    [
        ("image_url", "https://x/a", "image"),
        ("url", "https://x/a.PNG?ex=1", "image"),
        ("video_cover_url", "https://x/a", "image"),
        ("last_frame_url", "https://x/a", "image"),
        ("video_url", "https://x/a", "video"),
        ("output_url", "https://x/a.mp4#t=1", "video"),
        ("audio_url", "https://x/a", "audio"),
        ("wav_url", "https://x/a.wav", "audio"),
        ("midi_url", "https://x/a.mid", "file"),
        ("model_glb_url", "https://x/a.glb", "file"),
        ("image_url", "https://x/scene.json", "file"),
        ("url", "https://x", "file"),
        ("url", "https://[broken", "file"),
    ],
)
def test_the_ending_of_an_address_says_what_it_is_or_else_its_name(name: str, address: str, kind: str):
    ((link,),) = [part.links for part in parts_of({name: address}, {})]
    assert (link.url, link.kind) == (address, kind)


def test_several_of_a_kind_are_numbered_and_the_same_address_comes_once():
    urls = ["https://x/1.mp4", "https://x/2.mp4", "https://x/1.mp4", 7, "no address"]
    (part,) = parts_of({"video_urls": urls, "video_url": "https://x/2.mp4"}, {})
    assert part.links == (
        Link("video 1", "https://x/1.mp4", "video"),
        Link("video 2", "https://x/2.mp4", "video"),
    )


def test_what_is_no_result_is_no_part():
    response = {
        "error": {"url": "https://x/1"},
        "callback_url": "https://x/2",
        "input_image_url": "https://x/3.png",
        "request": {"image_url": "https://x/4.png"},
        "prompt": "https://x/5.png",
        "image_url": "https://x/6.png",
        "text": "a cat",
        "content": " ",
        "lyric": 7,
        "state": "succeeded",
    }
    assert parts_of(response, {"prompt": "a cat", "images": ["https://x/6.png"]}) == ()


def test_a_file_in_the_response_itself_is_counted():
    (part,) = parts_of({"data": [{"b64_json": "QUJD"}]}, {})
    assert part == Part(None, embedded=1)


def test_forged_responses_cost_little():
    deep: Any = {"url": "https://x/deep"}
    for _ in range(500):
        deep = {"data": [deep]}
    assert parts_of(deep, {}) == ()
    assert len(parts_of({"data": [{"url": f"https://x/{n}"} for n in range(5000)]}, {})) == 100
