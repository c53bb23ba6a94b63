"""When a task is finished: upstream's rules as a table, and the payloads of every service."""

import json
from typing import Any

import pytest

from receiver.upstream.results import Result, Unreadable, in_hand, read_callback, read_item
from tests.factories import SAMPLES, sample

LINK = {"image_url": "https://x/1.png"}
ERROR = {"error": {"code": "forbidden", "message": "no"}}
AT = {"finished_at": 1720364637.4}
RULES: list[tuple[dict[str, Any], dict[str, Any] | None, str]] = [
    # 1. Failed words, failures, and errors that ended it.
    ({"state": "failed"}, {"success": True, **LINK}, "failed"),
    ({}, {"success": True, "data": [{"state": "failed", **LINK}, {"state": "cancelled"}]}, "failed"),
    ({}, {"success": False, **ERROR}, "failed"),
    ({}, {"success": False, "progress": 62, **ERROR}, "failed"),
    ({"state": "processing"}, {"success": False, **ERROR}, "failed"),
    ({"state": "finished", **AT}, {"success": False, **ERROR}, "failed"),
    (AT, {"success": False, "error": "text"}, "failed"),
    (AT, {"success": False, "error": None}, "failed"),
    (AT, {"success": False, "progress": 40}, "failed"),
    (AT, {"error": "text"}, "failed"),
    (AT, {"success": True, "error": {"message": "no code"}}, "failed"),
    (AT, {"status": 402, "message": "insufficient balance"}, "failed"),
    ({}, {"status": 402, "message": "insufficient balance"}, "pending"),
    (AT, {"status": 404, "message": "Not found", "html": "<p>"}, "succeeded"),
    (AT, {"status": 200, "message": "fine"}, "pending"),
    ({}, {"success": False, "error": {"code": None}}, "pending"),
    ({}, {"success": False, "error": {"code": 1026}}, "failed"),
    # 2. Any other word.
    ({"state": "queued"}, {"success": True, **LINK}, "pending"),
    (
        {},
        {"success": True, "data": [{"state": "succeeded", **LINK}, {"state": "pending", **LINK}]},
        "pending",
    ),
    ({}, {"success": True, "data": {"status": "running", **LINK}}, "pending"),
    ({}, {"success": True, "status": "unknown", "data": [LINK]}, "pending"),
    (AT, {"success": True, "status": "unknown", "data": [LINK]}, "pending"),
    (AT, {"status": "unknown", "error": "text", **LINK}, "failed"),
    (AT, {"success": True, "status": "unknown", "error": "text", **LINK}, "succeeded"),
    # 3. Progress below 100.
    ({}, {"success": True, "progress": 42, **LINK}, "pending"),
    (AT, {"success": True, "progress": "35%", **LINK}, "pending"),
    ({}, {"status": "done", "progress": 99.5, **LINK}, "pending"),
    ({"progress": 42}, {"success": True, **LINK}, "pending"),
    ({"progress": {"percent": 42}}, {"success": True, **LINK}, "succeeded"),
    ({}, {"success": True, "progress": "100%", **LINK}, "succeeded"),
    # 4. Done, and yet failed.
    ({"status": "done"}, {"success": False, **LINK}, "failed"),
    ({"status": "done"}, {"error": "text", **LINK}, "failed"),
    ({"status": "done", **AT}, {"task_id": "t1"}, "failed"),
    ({"status": "done", **AT}, None, "failed"),
    ({"status": "done"}, {"task_id": "t1"}, "pending"),
    # 5. Results.
    ({}, {"success": True, **LINK}, "succeeded"),
    (AT, LINK, "succeeded"),
    ({"status": "ready"}, LINK, "succeeded"),
    ({}, {"success": True, "data": [{"state": "succeeded", **LINK}, {"state": "failed"}]}, "succeeded"),
    (AT, {"success": True}, "succeeded"),
    (AT, {"descriptions": ["a"]}, "succeeded"),
    ({"finished_at": "2026-11-26T12:00:00Z"}, {"descriptions": ["a"]}, "succeeded"),
    ({"finished_at": "2026-11-26T12:00:00.123456+02:00"}, LINK, "succeeded"),
    ({}, {"finished_at": 1720364637, **LINK}, "succeeded"),
    ({}, {"finished_at": "2026-11-26 12:00:00", "prompts": ["a"]}, "succeeded"),
    ({}, {"success": True, "data": [{"url": "https://x/1.png"}]}, "succeeded"),
    ({}, {"success": True, "data": [{"b64_json": "QUJD"}]}, "succeeded"),
    ({}, {"success": True, "data": {"variants": [{"output_url": "https://x"}]}}, "succeeded"),
    ({}, {"success": True, "seed": "151563"}, "succeeded"),
    # 6. Anything else.
    ({}, LINK, "pending"),
    ({}, None, "pending"),
    ({}, {}, "pending"),
    (AT, {}, "pending"),
    ({}, {"success": True}, "pending"),
    ({}, {"success": False, "error": "temporary"}, "pending"),
    ({}, {"success": False, "error": None}, "pending"),
    ({}, {"success": False}, "pending"),
    ({}, {"success": True, "seed": 151563}, "pending"),
    ({}, {"success": True, "image_url": None, "video_urls": [], "data": [{"url": " "}]}, "pending"),
    ({"finished_at": "yesterday"}, LINK, "pending"),
    ({"finished_at": True}, LINK, "pending"),
]


def item(response: Any, **fields: Any) -> Result:
    return read_item(
        {"id": "t1", "request": {"prompt": "p"}, "created_at": 1.5, "response": response} | fields
    )


@pytest.mark.parametrize(("around", "response", "status"), RULES)
def test_the_six_rules_in_their_order(around: dict[str, Any], response: Any, status: str):
    assert item(response, **around).status == status
    as_text = None if response is None else json.dumps(response)
    assert item(as_text, **around).status == status


@pytest.mark.parametrize(("around", "response", "status"), [rule for rule in RULES if rule[1] is not None])
def test_they_hold_for_callbacks_as_well(around: dict[str, Any], response: Any, status: str):
    flat = {**response, **around, "task_id": "t1"}
    for body in (flat, {"task": flat}, {"task_id": "t1", "response": response, **around}):
        assert read_callback(json.dumps(body).encode()).status == status


@pytest.mark.parametrize(
    "deeper", [{"data": [{"parts": [{"state": "running"}]}]}, {"result": {"status": "queued"}}]
)
def test_words_stand_no_deeper_than_the_members_of_data(deeper: dict[str, Any]):
    assert item({"success": True, **LINK, **deeper}).status == "succeeded"


@pytest.mark.parametrize(
    "response",
    [
        {"error": {"image_url": "https://x/1.png"}},
        {"callback_url": "https://us/1"},
        {"data": {"image_url": "https://in/1.png", "audio_urls": ["https://in/1.wav"]}},
        {"data": [{"first_image_url": "https://x/frame.png"}]},
    ],
)
def test_what_a_response_repeats_of_its_request_is_no_result(response: dict[str, Any]):
    request = {"image_url": "https://in/1.png", "audio": [{"url": "https://in/1.wav"}]}
    assert item({"success": True, **response}, request=request).status == "pending"


def test_the_request_decides_nothing():
    request = {"status": "failed", "success": False, "error": {"code": "x"}, "video_url": "https://in"}
    assert item(None, request=request, **AT).status == "pending"
    assert item({"success": True, **LINK}, request=request).status == "succeeded"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"success": True, **LINK}, "succeeded"),
        ({"status": "ready", "solution": {"text": "x"}}, "succeeded"),
        ({"status": "failed", **AT}, "failed"),
        ({"status": "succeeded", "created_at": 1.5, "content": {"url": "https://x"}}, "succeeded"),
        ({"success": True, **LINK, "request": {}, "created_at": 1.5}, "pending"),
        ({"state": "succeeded", **AT, "request": {}, "created_at": 1.5}, "failed"),
        ({"type": "imagine", "created_at": 1.5, **AT}, "pending"),
    ],
)
def test_an_item_without_response_and_request_is_its_own_response(fields: dict[str, Any], status: str):
    assert read_item({"id": "t1"} | fields).status == status


def test_the_times_of_an_item_may_be_text_or_stand_in_its_response():
    told = {"created_at": "2026-11-26T12:00:00Z", "response": {"finished_at": "2026-11-26T14:00:05+02:00"}}
    result = read_item({"id": "t1"} | told)
    assert (str(result.submitted_at), str(result.finished_at)) == (
        "2026-11-26 12:00:00",
        "2026-11-26 12:00:05",
    )


PAYLOADS = sorted(path.name for path in (SAMPLES / "services").glob("*.json"))
ENDS = {
    "failed": ("_failed", "_failure", "_of_a_rejected_submission"),
    "pending": (
        "_running",
        "_status_unknown",
        "_running_hiccup",
        "_response_null",
        "_success_without_result",
    ),
    "succeeded": ("_finished", "_finished_2026-10", "_success", "_ready", "_response_2026-10", "_poll_flat"),
}
SYNCHRONOUS = ("kling_lip_sync_answer", "kickart_sync_answer", "qwen-image_sync_answer")
NO_RESULTS = ("_submit_accepted", "_unknown", "_unknown_404", "_sync_error")


def expected(name: str) -> str | None:
    """Return what a payload's name says; None where it is none of a task."""
    stem = name.removesuffix(".json")
    if stem == "midjourney_item_finished_2024_sync_request" or stem in SYNCHRONOUS:
        return "succeeded"
    return next((status for status, ends in ENDS.items() if stem.endswith(ends)), None)


def named(told: dict[str, Any]) -> dict[str, Any]:
    return told if {"id", "task_id", "task"} & told.keys() else {"id": "t1", **told}


def items_of(name: str) -> list[dict[str, Any]]:
    told = json.loads((SAMPLES / "services" / name).read_bytes())
    return told["items"] if "items" in told else [named(told)]


def test_every_payload_has_a_meaning():
    others = [name.removesuffix(".json") for name in PAYLOADS if expected(name) is None]
    assert len(PAYLOADS) > 50
    assert [name for name in others if not name.endswith(NO_RESULTS) and "_sync_answer_" not in name] == []


def test_the_names_of_payloads_say_what_upstreams_facts_say():
    facts: dict[str, Any] = sample("services.json")
    told = {name: status for each in facts.values() for name, status in each["payloads"].items() if status}
    assert len(told) > 30
    assert {name: expected(name) for name in told} == told


@pytest.mark.parametrize("name", [name for name in PAYLOADS if expected(name)])
def test_every_payload_of_every_service_is_read_as_its_name_says_as_an_item(name: str):
    for told in items_of(name):
        assert read_item(told).status == expected(name)
        if "task" not in told and "response" not in told:
            around = {"id": "t2", "request": {"prompt": "p"}, "created_at": 1.5, "response": told}
            assert read_item(around).status == expected(name)


@pytest.mark.parametrize("name", [name for name in PAYLOADS if expected(name)])
def test_every_payload_of_every_service_is_read_as_its_name_says_as_a_callback(name: str):
    for told in items_of(name):
        if "task" in told or "response" in told:
            assert read_callback(json.dumps(told).encode()).status == expected(name)
        task = told.get("task", told)
        response = task.get("response", task) or {}
        body = {"task_id": "t1", **response}
        if "finished_at" in task:
            body["finished_at"] = task["finished_at"]
        status = task.get("status")
        body |= {"status": status} if status else {}
        assert read_callback(json.dumps(body).encode()).status == expected(name)


VIDEO, SONG = {"video_url": "https://x/1.mp4"}, {"audio_url": "https://x/1.mp3"}
# The forms of results that upstream's documents describe without an example.
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "openai": ({**AT, "type": "images_generations"}, {"success": True, "data": [{"url": "https://x/1.png"}]}),
    "openai as base64": ({}, {"success": True, "data": [{"b64_json": "QUJD"}]}),
    "gemini and grok": ({}, {"success": True, "data": [{"state": "succeeded", **VIDEO}]}),
    "producer": (AT, {"data": [{"state": "succeeded", "progress": "100%", **SONG}] * 2}),
    "qrart": ({}, {"success": True, **LINK}),
    "fish": (AT, {"success": True, **SONG}),
    "fish, older": ({}, {"success": True, "data": [SONG]}),
    "hailuo": ({}, {"success": True, "data": [{"state": "succeeded", **VIDEO}]}),
    "kling v3": (AT, {"success": True, "data": [{"state": "succeed", "duration": 5, **VIDEO}]}),
    "wan3": (AT, {"success": True, "data": {"status": "succeeded", **VIDEO}}),
    "seedance": (AT, {"success": True, "data": [{"status": "succeeded", "content": VIDEO}]}),
    "webextrator": (AT, {"kind": "extract", "data": {"title": "Example"}, "url": "https://x", "text": "Ex"}),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_without_an_example_are_read_too(name: str):
    around, response = FORMS[name]
    assert (
        read_item({"id": "t1", "created_at": 1.5, "request": {}, "response": response} | around).status
        == "succeeded"
    )
    body = {"task_id": "t1", **response} | {k: v for k, v in around.items() if k == "finished_at"}
    assert read_callback(json.dumps(body).encode()).status == "succeeded"


@pytest.mark.parametrize("name", [name for name in PAYLOADS if "submit_accepted" in name])
def test_an_acceptance_is_no_end(name: str):
    assert read_callback((SAMPLES / "services" / name).read_bytes()).status == "pending"


def test_a_failure_tells_its_error_however_it_is_written():
    told = {
        name: sample(f"services/{name}") for name in ("fish_item_failed.json", "captcha_task_failed.json")
    }
    errors = {name: json.loads(read_item(one).error or "") for name, one in told.items()}
    assert errors == {
        "fish_item_failed.json": {"code": 402, "message": "insufficient balance"},
        "captcha_task_failed.json": {"code": "timeout", "message": "The captcha task timed out."},
    }


@pytest.mark.parametrize(
    ("response", "is_in_hand"),
    [
        (LINK, True),
        ({"success": True, "data": [{"state": "pending", **LINK}]}, True),
        ({"success": True, "progress": 42, **LINK}, False),
        ({"error": "text", **LINK}, False),
        ({"success": False, **LINK}, False),
        ({"success": True}, False),
        (None, False),
    ],
)
def test_a_result_in_hand_outranks_what_it_was(response: dict[str, Any] | None, is_in_hand: bool):
    before = item(response)
    assert before.status == "pending"
    after = in_hand(before)
    assert (after is not None) == is_in_hand
    if after:
        assert (after.status, after.response) == ("succeeded", before.response)
        assert after.key > before.key


def test_an_item_of_an_unknown_task_is_none():
    with pytest.raises(Unreadable):
        read_item(sample("services/openai_retrieve_unknown.json"))
