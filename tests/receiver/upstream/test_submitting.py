import json

import pytest

from receiver.upstream.submitting import (
    Fate,
    Order,
    Wants,
    as_answer,
    canonical,
    read_answer,
    read_order,
    status_of,
    to_send,
)

OURS = "https://backstop.example.com/callbacks/token/?service=imagined"


def order(accept: str = "application/json", streams: bool = True, **body: object) -> Order:
    read = read_order(json.dumps(body).encode(), accept, streams=streams)
    assert read is not None
    return read


def sent(of: Order) -> dict[str, object]:
    return json.loads(to_send(of, OURS, "trace").decode())


@pytest.mark.parametrize(
    ("body", "wants"),
    [
        ({"async": True}, Wants.TASK),
        ({"async": True, "callback_url": None}, Wants.TASK),
        ({"callback_url": "https://x/y"}, Wants.TASK),
        ({"callback_url": "https://x/y", "async": False}, Wants.TASK),
        ({}, Wants.RESULT),
        ({"async": False}, Wants.RESULT),
        ({"callback_url": ""}, Wants.RESULT),
        ({"async": "true"}, Wants.RESULT),
    ],
)
def test_what_the_caller_waits_for(body, wants):
    assert order(**body).wants is wants


@pytest.mark.parametrize(
    ("streams", "body", "wants"),
    [
        (True, {}, Wants.LINES),
        (False, {}, Wants.RESULT),
        (True, {"async": True}, Wants.TASK),
        (True, {"callback_url": "https://x/y"}, Wants.TASK),
    ],
)
def test_lines_come_where_the_operation_knows_them_and_nothing_else_is_asked_for(streams, body, wants):
    assert order("Application/x-ndjson", streams, **body).wants is wants


@pytest.mark.parametrize("body", [b"", b"[]", b"x", b'"x"', b"\xff", b"[" * 100_000, b'{"stream": true}'])
def test_what_is_no_object_is_relayed_as_it_is(body):
    assert read_order(body, "", streams=True) is None


def test_our_callback_url_and_the_trace_id_go_out_and_the_rest_as_it_is():
    given = {"prompt": "ü\ud800", "n": 12345678901234567890, "async": True}
    assert sent(order(**given)) == {**given, "callback_url": OURS, "trace_id": "trace"}


def test_a_synchronous_submission_goes_out_as_one_with_a_callback():
    assert sent(order(**{"async": False, "a": 1})) == {"a": 1, "callback_url": OURS, "trace_id": "trace"}


def test_lines_come_only_without_a_callback_url():
    assert sent(order("application/x-ndjson", a=1)) == {"a": 1, "trace_id": "trace"}


def test_the_content_is_the_same_whatever_the_order_of_its_fields():
    one, other = (order(**dict(fields)) for fields in ([("a", 1), ("b", 2)], [("b", 2), ("a", 1)]))
    assert canonical(one) == canonical(other) != canonical(order(a=1, b=3))


@pytest.mark.parametrize(
    ("status", "body", "fate"),
    [
        (200, {"task_id": "t"}, (Fate.TAKEN, "t")),
        (201, {"success": True, "task_id": "t", "trace_id": "x"}, (Fate.TAKEN, "t")),
        (200, {"task": {"id": "t"}}, (Fate.TAKEN, "t")),
        (200, {"id": 7}, (Fate.TAKEN, "7")),
        (200, {"success": True}, (Fate.UNCLEAR, None)),
        (200, [], (Fate.UNCLEAR, None)),
        (200, {"success": False, "error": {"code": "used_up"}, "task_id": "t"}, (Fate.REFUSED, None)),
        (200, {"success": False, "error": "no"}, (Fate.REFUSED, None)),
        *((status, {"error": {}}, (Fate.REFUSED, None)) for status in (307, 400, 401, 403, 413, 429)),
        *((status, {}, (Fate.UNCLEAR, None)) for status in (408, 409, 499, 500, 502, 503, 504)),
        # The code decides, whatever the status.
        *((status, {"error": {"code": "busy"}}, (Fate.UNCLEAR, None)) for status in (200, 400, 403, 500)),
        *((status, {"error": {"code": "used_up"}}, (Fate.REFUSED, None)) for status in (400, 403, 500)),
    ],
)
def test_what_upstreams_answer_means(status, body, fate):
    assert read_answer(status, json.dumps(body).encode()) == fate


def test_an_answer_that_cannot_be_read_is_unclear():
    assert read_answer(200, b"<html>") == read_answer(200, b"") == (Fate.UNCLEAR, None)


def test_a_result_is_answered_as_upstream_would():
    assert as_answer('{"success": true, "a": 1}', "t", "x") == {
        **{"success": True, "a": 1},
        **{"task_id": "t", "trace_id": "x"},
    }
    assert as_answer('{"task_id": "own"}', "t", None) == {"task_id": "own"}


@pytest.mark.parametrize(
    ("code", "status"),
    [("bad_request", 400), ("forbidden", 403), ("used_up", 403), ("api_error", 500), (None, 500)],
)
def test_a_failure_has_the_status_that_upstream_gives_its_code(code, status):
    assert status_of({"error": {"code": code}}, failed=True) == status
    assert status_of({"error": "bare"}, failed=True) == 500
    assert status_of({}, failed=False) == 200
