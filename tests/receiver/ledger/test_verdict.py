"""When a task is finished: upstream's rules as a table, and every service's payloads read as their names say."""

import json
from typing import Any

import pytest

from receiver.ledger.results import Unreadable, read_callback, read_item
from receiver.ledger.verdict import judge, read_moment, told_by
from tests.factories import SAMPLES

FINISHED = {"finished_at": 1720364637.4}
LINK = {"image_url": "https://x/1.png"}
OK, NO = {"success": True}, {"success": False}
CODED = {"error": {"code": "forbidden", "message": "no"}}
BARE = {"error": "hiccup"}


def judged(item: dict[str, Any], response: Any) -> str:
    return judge(told_by({"id": "t1", "created_at": 1.0, "response": response} | item, is_item=True))


@pytest.mark.parametrize(
    ("item", "response", "status"),
    [
        # 1: failed
        ({"state": "failed"}, {}, "failed"),
        ({}, {"status": " Cancelled "}, "failed"),
        ({}, {"data": [{"state": "error"}, {"state": "failed"}]} | LINK | OK, "failed"),
        ({}, NO | CODED, "failed"),
        ({}, NO | CODED | {"progress": 62}, "failed"),
        ({"state": "finished"} | FINISHED, NO | CODED, "failed"),
        (FINISHED, NO | BARE, "failed"),
        (FINISHED, NO, "failed"),
        (FINISHED, BARE, "failed"),
        (FINISHED, OK | CODED, "failed"),
        (FINISHED, {"status": 402, "message": "insufficient balance"}, "failed"),
        ({}, {"status": 402, "message": "insufficient balance"}, "pending"),
        (FINISHED, {"status": 200, "message": "fine"}, "pending"),
        # 2: a word that is neither done nor failed, in any part
        ({}, {"state": "pending"} | OK | LINK, "pending"),
        ({}, {"data": [{"state": "succeeded"} | LINK, {"state": "running"}]} | OK, "pending"),
        ({"status": "processing"}, OK | LINK, "pending"),
        (FINISHED, {"state": "processing"} | LINK, "pending"),
        (FINISHED, {"state": "processing"} | LINK | CODED, "failed"),
        (FINISHED, {"state": "processing"} | LINK | CODED | OK, "succeeded"),
        # 3: progress
        ({}, OK | LINK | {"progress": 35}, "pending"),
        ({}, OK | LINK | {"progress": "35%"}, "pending"),
        ({}, OK | LINK | {"progress": "100%"}, "succeeded"),
        ({}, OK | LINK | {"progress": {"percent": 35}}, "succeeded"),
        (FINISHED, OK | LINK | {"progress": 99}, "pending"),
        # 4: a done word that something contradicts
        ({"state": "finished"}, NO, "failed"),
        ({"state": "finished"}, OK | LINK | BARE, "failed"),
        ({"state": "finished"} | FINISHED, {"message": "no"}, "failed"),
        ({"state": "finished"}, {"message": "no"}, "pending"),
        # 5: succeeded
        ({}, OK | LINK, "succeeded"),
        (FINISHED, {"descriptions": ["a"]}, "succeeded"),
        ({}, {"state": "done"} | LINK, "succeeded"),
        (FINISHED, OK, "succeeded"),
        ({"status": "ready"} | FINISHED, OK, "succeeded"),
        ({}, OK | {"data": {"task_id": "t1", "video_url": "https://x/1.mp4"}}, "succeeded"),
        ({}, OK | {"finished_at": "2026-08-10T12:00:00Z"}, "succeeded"),
        ({"finished_at": "2026-08-10T12:00:00.060000Z"}, OK, "succeeded"),
        ({}, OK | {"data": [{"lyric": "la"}]}, "succeeded"),
        # 6: still running
        ({}, None, "pending"),
        ({}, {}, "pending"),
        ({"state": "finished"} | FINISHED, None, "pending"),
        ({"state": "finished"} | FINISHED, {}, "pending"),
        ({"state": "failed"}, None, "failed"),
        ({}, OK, "pending"),
        ({}, NO | BARE, "pending"),
        ({}, NO, "pending"),
        ({}, LINK, "pending"),
        ({}, OK | {"image_url": "", "image_urls": [], "seed": 7}, "pending"),
        ({"finished_at": "soon"}, OK, "pending"),
        # What is no result: errors, callback URLs, and inputs that the response repeats.
        ({}, OK | {"callback_url": "https://x/1", "request": LINK}, "pending"),
        ({"request": {"image_url": "https://x/in.png"}}, OK | {"image_url": "https://x/in.png"}, "pending"),
        ({"request": {"urls": ["https://x/in.png"]}}, OK | {"data": {"url": "https://x/in.png"} | LINK}, "succeeded"),
        ({}, OK | {"state": 3, "status": None, "data": 5}, "pending"),
        ({}, [OK | LINK], "pending"),
    ],
)  # fmt: skip
def test_a_task_is_judged_by_upstreams_rules(item, response, status):
    assert judged(item, response) == status


def test_a_callbacks_body_is_a_response():
    assert judge(told_by({"task_id": "t1"} | OK | LINK, is_item=False)) == "succeeded"
    assert judge(told_by({"task_id": "t1"} | OK, is_item=False)) == "pending"


def test_a_flat_item_is_its_own_response_and_one_that_has_none_is_running():
    assert judge(told_by({"task_id": "t1", "state": "succeed"} | OK | LINK, is_item=True)) == "succeeded"
    assert judge(told_by({"id": "t1", "request": LINK} | OK, is_item=True)) == "pending"


# What each file says by its name. The rest are answers to submissions and look-ups of unknown ids, no tasks.
ITEMS = {
    **dict.fromkeys(("any_item_running_hiccup", "any_item_running_response_null"), "pending"),
    **dict.fromkeys(("any_item_running_success_without_result", "captcha_task_running"), "pending"),
    **dict.fromkeys(("captcha_task_failed", "fish_item_failed", "minimax_retrieve_failed"), "failed"),
}
CALLBACKS = {
    "midjourney_callback_failure": "failed",
    "midjourney_callback_of_a_rejected_submission": "failed",
    "suno_callback_failure": "failed",
}
FINISHED_WORDS = ("_item_finished", "_retrieve_finished", "_task_ready", "_poll_flat", "lip_sync_answer")
NAMES = sorted(path.stem for path in (SAMPLES / "services").glob("*.json"))


def payload(name: str) -> Any:
    return json.loads((SAMPLES / "services" / f"{name}.json").read_bytes())


def is_finished(name: str) -> bool:
    return any(word in name for word in FINISHED_WORDS)


@pytest.mark.parametrize("name", [name for name in NAMES if name in ITEMS or is_finished(name)])
def test_every_services_items_are_read_as_their_names_say(name):
    told = payload(name)
    item = {"id": "t1"} | told if name.startswith("any_") else told
    result = read_item(item)
    assert result.status == ITEMS.get(name, "succeeded")
    assert (result.error is not None) is (result.status == "failed")
    assert result.response is not None or result.status == "pending"


@pytest.mark.parametrize("name", [name for name in NAMES if name in ITEMS or is_finished(name)])
def test_what_an_item_says_a_callback_with_its_response_says_too(name):
    told = payload(name)
    response = told.get("response")
    if "task" in told or response is None:  # it is flat, or runs
        return
    # Without the word and the moment that stand beside the response in an item.
    lost = {"maestro_item_finished", "webextrator_item_finished", "fish_item_failed"}
    if name not in lost:
        assert read_callback(json.dumps({"task_id": "t1"} | response).encode()).status == ITEMS.get(
            name, "succeeded"
        )


@pytest.mark.parametrize("name", [name for name in NAMES if "_callback_" in name])
def test_every_services_callbacks_are_read_as_their_names_say(name):
    result = read_callback((SAMPLES / "services" / f"{name}.json").read_bytes())
    assert result.status == CALLBACKS.get(name, "succeeded")
    assert result.task_id == payload(name)["task_id"]


@pytest.mark.parametrize("name", [name for name in NAMES if "accepted" in name])
def test_what_a_submission_is_answered_is_no_result(name):
    told = payload(name)
    assert read_item(told).status == "pending"
    assert read_callback(json.dumps(told).encode()).status == "pending"


@pytest.mark.parametrize("name", ["kickart_sync_answer", "qwen-image_sync_answer", "flux_response_2026-10"])
def test_the_answer_to_a_call_that_waits_is_a_result(name):
    assert read_callback((SAMPLES / "services" / f"{name}.json").read_bytes()).status == "succeeded"


def test_a_response_that_is_json_text_is_parsed():
    told = {"id": "t1", "created_at": 1.0, "response": json.dumps(OK | LINK)}
    result = read_item(told)
    assert (result.status, json.loads(result.response or "")) == ("succeeded", OK | LINK)
    assert read_item(told | {"response": "{broken"}).status == "pending"


def test_a_running_task_may_have_its_result_in_hand():
    assert read_item({"id": "t1", "response": LINK}).has_result_in_hand
    for response in (OK, LINK | BARE, {"progress": 35}):
        assert not read_item({"id": "t1", "response": response}).has_result_in_hand


def test_what_is_wrapped_is_unwrapped():
    task = {"id": "t1", "response": OK | LINK}
    assert (read_item({"task": task}).task_id, read_item({"task": task}).status) == ("t1", "succeeded")
    assert read_callback(json.dumps({"task": task}).encode()).status == "succeeded"
    with pytest.raises(Unreadable):
        read_item({"task": {"response": OK}})


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (1720364637.4, "2024-07-07T15:03:57.400000"),
        ("2026-08-10T12:00:00.060000Z", "2026-08-10T12:00:00.060000"),
        ("2026-08-10T14:00:00+02:00", "2026-08-10T12:00:00"),
        ("2026-08-10 12:00:00", "2026-08-10T12:00:00"),
        ("0001-01-01T00:00:00+23:59", None),
        ("soon", None), ("", None), (None, None), (True, None), ([], None), (-5, None),
    ],
)  # fmt: skip
def test_a_moment_is_seconds_or_iso_text(value, moment):
    read = read_moment(value)
    assert (read and read.isoformat()) == moment


def test_of_a_request_no_pictures_are_kept():
    picture = "data:image/png;base64," + "QUJD" * 100_000
    told = {
        "id": "t1",
        "request": {"prompt": "a cat", "images": [picture], "image": picture},
        "response": None,
    }
    kept = json.loads(read_item(told).request or "")
    assert kept["prompt"] == "a cat"
    assert kept["image"] == kept["images"][0] == picture[:100] + "… (400,022 characters)"
    many = {"id": "t1", "request": {f"part-{n}": "x" * 10_000 for n in range(100)}}
    assert len(read_item(many).request or "") < 65_536
    assert read_item({"id": "t1", "request": {str(n): n for n in range(100_000)}}).request is None
