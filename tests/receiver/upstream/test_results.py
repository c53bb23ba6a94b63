import contextlib
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.upstream.results import MAX_VALUES, Result, Unreadable, is_storable, read_callback, read_item
from receiver.upstream.verdicts import read_progress
from tests.factories import SAMPLES, body, sample, sample_lines

LINK = {"image_url": "https://x/1.png"}
MIXED = {item["id"]: item for item in sample("retrieve_batch_mixed.json")["items"]}


def callback(**fields: Any) -> Result:
    return read_callback(json.dumps({"task_id": "t1"} | fields).encode())


def item(response: Any = None, **fields: Any) -> Result:
    return read_item({"id": "t1", "response": response} | fields)


@pytest.mark.parametrize(
    ("name", "status", "progress"),
    [
        ("callback_imagine_success.json", "succeeded", 100),
        ("callback_edits_success.json", "succeeded", 100),
        ("callback_videos_success.json", "succeeded", 100),
        ("callback_describe_success.json", "succeeded", None),
        ("callback_imagine_failure.json", "failed", None),
    ],
)
def test_it_reads_every_sample_of_a_final_callback(name: str, status: str, progress: float | None):
    raw = (SAMPLES / name).read_bytes()
    result = read_callback(raw)
    assert (result.status, result.progress) == (status, progress)
    assert result.task_id == sample(name)["task_id"]
    assert result.trace_id == sample(name).get("trace_id")
    assert json.loads(result.response or "") == sample(name)
    assert (result.error and json.loads(result.error)) == sample(name).get("error")


def test_success_with_progress_below_100_is_not_the_end():
    results = [read_callback(line) for line in sample_lines("callback_imagine_progress.jsonl")]
    assert [(r.status, r.progress) for r in results] == [("pending", 35), ("pending", 75), ("succeeded", 100)]
    assert [r.key for r in results] == sorted(r.key for r in results)


@pytest.mark.parametrize(
    ("task_id", "status", "progress"),
    [
        ("7489df4c-ef03-4de0-b598-e9a590793434", "succeeded", 100),
        ("807f62de-c63e-4add-8345-7f0ae6dd18e7", "pending", None),
        ("5f0c7ad2-0d4f-4a0f-b1a8-7c1f6fca5f0e", "pending", 42),
        ("c0a4d1f3-9e65-4b7c-9a0e-1c0cf4d0b9aa", "failed", None),
    ],
)
def test_it_reads_every_item_of_a_batch(task_id: str, status: str, progress: float | None):
    result = read_item(MIXED[task_id])
    assert (result.task_id, result.status, result.progress) == (task_id, status, progress)
    assert result.type == "imagine"
    assert result.prompt == MIXED[task_id]["request"]["prompt"]


def test_it_reads_the_times_and_trace_of_an_item():
    result = read_item(sample("retrieve_seed.json"))
    assert result.status == "succeeded"
    assert str(result.submitted_at) == "2024-03-10 16:38:45.063000"
    assert str(result.finished_at) == "2024-03-10 16:39:00.098000"


@pytest.mark.parametrize("word", ["finished", "SUCCEEDED", " Complete ", "success", "succeed", "completed"])
def test_a_word_of_success_makes_a_result_the_end(word: str):
    assert item(LINK, state=word).status == "succeeded"
    assert item({"status": word, **LINK}).status == "succeeded"
    assert callback(status=word, **LINK).status == "succeeded"
    assert callback(status=word).status == "pending"


@pytest.mark.parametrize("word", ["failed", "Failure", "error", "cancelled", "canceled", "rejected"])
def test_a_word_of_failure_decides(word: str):
    assert item({"success": True, **LINK, "progress": 100}, state=word).status == "failed"
    assert callback(success=True, state=word, **LINK).status == "failed"


@pytest.mark.parametrize("word", ["pending", "processing", "generating", "queued", "whatever"])
def test_any_other_word_means_still_running_even_beside_finished_at(word: str):
    assert item({"success": True, **LINK}, state=word, finished_at=1720364637.4).status == "pending"


@pytest.mark.parametrize("empty", ["", "  ", None, 5, [], {}])
def test_the_first_word_that_is_one_counts(empty: Any):
    assert item({"success": True, "state": empty, "status": "failed", **LINK}, state=empty).status == "failed"


@pytest.mark.parametrize(
    ("response", "fields", "status"),
    [
        ({"success": False, "error": {"code": "x"}, "progress": 50}, {}, "failed"),
        ({"success": False, "error": {"code": "x", "message": "y"}}, {}, "failed"),
        ({"success": False, "error": {"message": "no code"}}, {}, "pending"),
        ({"success": False, "error": "fetch failed"}, {}, "pending"),
        ({"success": False, "error": None}, {}, "pending"),
        ({"success": False, "error": "fetch failed"}, {"finished_at": 1720364637.4}, "failed"),
        ({"success": True, "descriptions": ["a"]}, {}, "succeeded"),
        ({"success": True, "prompts": ["a"]}, {}, "succeeded"),
        ({"success": True, "video_urls": ["u"]}, {}, "succeeded"),
        ({"success": True, "sub_image_urls": ["u"]}, {}, "succeeded"),
        ({"success": True, "descriptions": []}, {}, "pending"),
        ({"success": True, "image_url": 5}, {}, "pending"),
        ({"success": True, "image_url": ""}, {}, "pending"),
        ({"success": True}, {}, "pending"),
        ({"success": True}, {"finished_at": 1720364637.4}, "succeeded"),
        ({"success": "true", **LINK}, {}, "pending"),
        ({"success": 1, **LINK}, {}, "pending"),
        ({}, {"finished_at": 1720364637.4}, "pending"),
        (None, {}, "pending"),
        (None, {"finished_at": 1720364637.4, "state": "finished"}, "failed"),
        ([1], {"finished_at": 1720364637.4}, "pending"),
        ("text", {}, "pending"),
        ({"success": True}, {"finished_at": True}, "pending"),
        ({"success": True}, {"finished_at": "yesterday"}, "pending"),
        ({"success": True}, {"finished_at": 0}, "pending"),
    ],
)
def test_it_follows_upstreams_rules_in_their_order(response: Any, fields: dict[str, Any], status: str):
    assert item(response, **fields).status == status


@pytest.mark.parametrize(
    ("value", "progress"),
    [
        (0, 0), (35, 35), (100, 100), (0.75, 0.75), ("75%", 75), (" 75 % ", 75), ("75", 75),
        ("0.75", 0.75),
        ("12.5%", 12.5), (-1, None), (101, None), ("101%", None), ("abc", None), ("1e1", None), ("1_0", None),
        ("nan", None), ("", None), (None, None), (True, None), ([75], None), ({"a": 1}, None),
        (10**400, None),
        ("\uff19", None),
    ],
)  # fmt: skip
def test_progress_is_0_to_100_or_nothing(value: Any, progress: float | None):
    assert read_progress(value) == progress


def test_an_integer_is_taken_as_an_id_in_text():
    assert read_callback(b'{"task_id": 12345678901234567890}').task_id == "12345678901234567890"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "bad_json"),
        (b"task_id=1", "bad_json"),
        (b'{"task_id": "t1"} trailing', "bad_json"),
        (b'{"task_id": "\xff"}', "bad_utf8"),
        ('{"task_id": "t1"}'.encode("utf-16"), "bad_utf8"),
        (b"[]", "not_an_object"),
        (b'[{"task_id": "t1"}]', "not_an_object"),
        (b"null", "not_an_object"),
        (b'"t1"', "not_an_object"),
        (b"{}", "no_task_id"),
        (b'{"task_id": null}', "no_task_id"),
        (b'{"task_id": ""}', "no_task_id"),
        (b'{"task_id": true}', "no_task_id"),
        (b'{"task_id": 1.5}', "no_task_id"),
        (b'{"task_id": ["t1"]}', "no_task_id"),
        (b'{"task_id": "' + b"x" * 201 + b'"}', "bad_task_id"),
        (b'{"task_id": "' + b"x" * 10_000 + b'"}', "bad_task_id"),
        (b'{"task_id": ' + b"9" * 201 + b"}", "bad_task_id"),
        (b'{"task_id": "a\\u0000b"}', "bad_task_id"),
        (b'{"task_id": "\\ud800"}', "bad_task_id"),
        (b'{"task_id": "t1", "a": ' + b"[" * 100 + b"]" * 100 + b"}", "nested_too_deeply"),
        (b"[" * 100_000, "nested_too_deeply"),
        (b'{"task_id":' * 50_000, "nested_too_deeply"),
    ],
)
def test_it_says_why_a_body_is_no_result(raw: bytes, code: str):
    with pytest.raises(Unreadable) as caught:
        read_callback(raw)
    assert caught.value.code == code


def test_the_longest_id_is_200_characters():
    assert len(read_callback(body("x" * 200)).task_id) == 200


def test_the_last_of_duplicate_keys_counts():
    assert read_callback(b'{"task_id": "a", "task_id": "b"}').task_id == "b"


def test_a_byte_order_mark_does_not_matter():
    assert read_callback(b"\xef\xbb\xbf" + body("t1")).task_id == "t1"


def test_what_it_keeps_is_strict_json_that_every_database_can_hold():
    raw = (
        b'{"task_id": "t1", "a": NaN, "b": [Infinity, 1e999], "c": "\\u0000\\ud800", "d": '
        + b"9" * 5000
        + b"}"
    )
    response = read_callback(raw).response
    assert response
    assert response.isascii()
    kept = json.loads(response, parse_constant=lambda name: pytest.fail(f"{name} is not strict JSON"))
    assert kept == {"task_id": "t1", "a": None, "b": [None, None], "c": "\0\ud800", "d": None}


def test_it_masks_callback_tokens_before_anything_is_stored():
    url = "https://backstop.example.com/callbacks/s3cret-token/order/7"
    result = item({"success": True, "note": url}, request={"callback_url": url, "prompt": "a cat"})
    assert "s3cret" not in repr(result)
    assert json.loads(result.request or "")["callback_url"] == url.replace("s3cret-token", "***")


@pytest.mark.parametrize(
    "broken", [{"type": 5}, {"trace_id": ["x"]}, {"request": "x"}, {"created_at": "x"}, {"type": "\0"}]
)
def test_an_item_broken_in_one_field_keeps_the_others(broken: dict[str, Any]):
    whole = {"type": "imagine", "trace_id": "trace", "request": {"prompt": "p"}, "created_at": 1720364607.967}
    result = item({"success": True, **LINK, "progress": 100}, **(whole | broken))
    known = {"type": result.type, "trace_id": result.trace_id, "request": result.prompt}
    known |= {"created_at": result.submitted_at}
    assert result.status == "succeeded"
    assert [name for name, value in known.items() if value is None] == list(broken)


@pytest.mark.parametrize("thing", [None, [], "t1", 5, {}, {"id": None}, {"id": ["t1"]}])
def test_what_is_no_task_object_is_refused(thing: Any):
    with pytest.raises(Unreadable):
        read_item(thing)


def test_a_failure_without_a_structured_error_keeps_its_words():
    result = item({"success": False, "error": "fetch failed"}, finished_at=1720364637.4)
    assert json.loads(result.error or "") == {"code": None, "message": "fetch failed"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)
hostile_fields = st.dictionaries(
    st.sampled_from(
        ["task_id", "id", "success", "state", "status", "progress", "error", "response", "request", "finished_at",
         "created_at", "image_url", "descriptions", "video_urls", "type", "trace_id"]
    ),
    json_values,
)  # fmt: skip


@given(hostile_fields)
def test_wrong_types_anywhere_never_break_it(fields: dict[str, Any]):
    for read in (lambda: read_callback(json.dumps(fields).encode()), lambda: read_item(fields)):
        try:
            result = read()
        except Unreadable:
            continue
        assert result.status in {"pending", "failed", "succeeded"}
        assert result.progress is None or 0 <= result.progress <= 100
        for text in (result.response, result.error, result.request):
            assert text is None or json.loads(text) is not None


@given(st.binary(max_size=300))
def test_any_bytes_are_a_result_or_unreadable(raw: bytes):
    with contextlib.suppress(Unreadable):
        assert read_callback(raw).task_id


def test_deep_nesting_leaves_the_interpreters_limit_alone():
    limit = sys.getrecursionlimit()
    with pytest.raises(Unreadable):
        read_callback(b"[" * 10_000 + b"]" * 10_000)
    assert sys.getrecursionlimit() == limit


@pytest.mark.parametrize("text", ["я" * 1000, "a\0b", "\ud800", "\u2028 \U0001f600", '"\\'])
def test_a_response_is_stored_as_short_as_it_came_and_comes_out_as_it_went_in(text):
    result = read_callback(json.dumps({"task_id": "t1", "success": True, "text": text}).encode())
    assert json.loads(result.response)["text"] == text
    assert is_storable(result.response)
    verbatim = json.dumps({"task_id": "t1", "success": True, "text": text}, ensure_ascii=False)
    assert len(result.response.encode()) <= len(verbatim.encode(errors="backslashreplace"))


@pytest.mark.parametrize(
    "error", [{"code": "bad", "message": "ж" * 100_000}, "x" * 100_000, {"code": ["y"] * 9999}]
)
def test_a_long_error_is_kept_once_and_told_by_its_beginning(error):
    fields = {"task_id": "t1", "state": "failed", "error": error}
    result = read_callback(json.dumps(fields).encode())
    assert json.loads(result.response)["error"] == error
    told = json.loads(result.error)
    assert all(len(part or "") <= 1001 for part in told.values())
    assert any((part or "").endswith("…") for part in told.values())


def test_a_body_of_too_many_values_is_not_read():
    body = b'{"task_id": "t1", "list": [' + b"{}," * (MAX_VALUES // 2) + b"{}]}"
    with pytest.raises(Unreadable) as caught:
        read_callback(body)
    assert caught.value.code == "too_many_values"


def test_pictures_in_a_body_are_few_values():
    picture = "QUJD" * 2_000_000
    body = json.dumps({"task_id": "t1", "success": True, "image_url": "u", "b64_json": picture}).encode()
    assert read_callback(body).status == "succeeded"


@pytest.mark.parametrize("task_id", ["/callbacks/secret", "https://h/callbacks/secret/ref"])
def test_an_id_that_would_show_a_token_is_none(task_id):
    with pytest.raises(Unreadable) as caught:
        read_callback(json.dumps({"task_id": task_id, "success": True}).encode())
    assert caught.value.code == "bad_task_id"
    assert "secret" not in str(caught.value)
