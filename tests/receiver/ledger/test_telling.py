"""What is told of an event: with `confirmed`, nothing that only a callback says."""

import json
from typing import Any

import pytest

from receiver.ledger.kinds import BY_CALLBACK, BY_CALLER, BY_LOOKUP
from receiver.ledger.models import Event, Task
from receiver.ledger.telling import body_for_app, body_in_upstreams_form, told_as
from tests.forwarding import NOW

FORGED, TRUE = '{"success": true, "image_url": "forged"}', '{"success": true, "image_url": "true"}'


def event(type_: str = "task.succeeded", status: str = "succeeded", confirmed: bool | None = None) -> Event:
    return Event(
        id=1, happened_at=NOW, sequence=1, confirmed=confirmed, task_id="t1", type=type_, status=status
    )


def task(**fields: Any) -> Task:
    known = {"callback_status": "succeeded", "callback_response": FORGED, "callback_key": b"9"}
    return Task(id="t1", service="midjourney", status="succeeded", **known | fields)


def told(task: Task, when: Any = "confirmed", of: Event | None = None) -> dict[str, Any]:
    return json.loads(body_for_app(of or event(), task, when))["data"]["task"]


@pytest.mark.parametrize(
    ("of", "confirmed", "settled"),
    [
        (event(), None, "task.succeeded"),
        (event(confirmed=True), "task.succeeded", "task.succeeded"),
        (event(confirmed=False), "task.succeeded", "task.succeeded"),
        (event("task.failed", "failed"), None, "task.failed"),
        (event("task.expired", "expired"), "task.expired", "task.expired"),
        (event("task.disputed"), "task.disputed", "task.disputed"),
        (event("task.disputed", "pending"), "task.disputed", "task.disputed"),
        (event("task.confirmed", "failed", True), "task.failed", "task.failed"),
    ],
)
def test_which_events_are_told_as_what(of, confirmed, settled):
    assert (told_as(of, "confirmed"), told_as(of, "settled")) == (confirmed, settled)


def test_a_result_that_only_a_callback_says_is_not_in_a_dispute_or_an_expiry():
    for type_, status, shown in (("disputed", "succeeded", "pending"), ("expired", "expired", "expired")):
        of = event(f"task.{type_}", status)
        unproven = task(settled_by="callback", settled_at=NOW)
        assert "forged" in json.dumps(told(unproven, "settled", of))
        said = told(unproven, of=of)
        assert "forged" not in json.dumps(said)
        assert (said["status"], said["response"], said["settled_by"]) == (shown, None, None)


def test_upstreams_result_is_told_where_a_callback_says_another():
    proven = task(lookup_status="succeeded", lookup_response=TRUE, lookup_key=b"1")
    assert told(proven)["response"] == json.loads(TRUE)
    assert json.loads(body_in_upstreams_form(proven, "confirmed") or b"")["image_url"] == "true"


@pytest.mark.parametrize("when", ["confirmed", "settled"])
@pytest.mark.parametrize("source", [BY_CALLER, BY_LOOKUP, BY_CALLBACK])
def test_a_fact_that_only_a_callback_tells_is_not_told(source, when):
    known = task(
        lookup_status="succeeded",
        lookup_response=TRUE,
        ref="r",
        ref_source=source,
        trace_id="trace",
        trace_id_source=source,
    )
    is_told = source != BY_CALLBACK or when == "settled"
    said = told(known, when)
    assert (said["ref"], said["trace_id"]) == (("r", "trace") if is_told else (None, None))
    posted = json.loads(body_in_upstreams_form(known, when) or b"")
    assert posted.get("trace_id") == ("trace" if is_told else None)


@pytest.mark.parametrize(
    ("url", "ref"),
    [
        ("https://here/callbacks/***/order-7", "order-7"),
        ("https://here/app/callbacks/***/a%20b/c?x=1", "a b/c"),
        ("https://here/callbacks/***", None),
        ("https://other/hook", None),
        ("https://[bad/callbacks/***/x", None),
        (7, None),
    ],
)
def test_the_ref_is_that_of_the_callback_url_that_upstream_repeats(url, ref):
    known = task(
        ref="forged",
        ref_source=BY_CALLBACK,
        request=json.dumps({"callback_url": url}),
        lookup_status="failed",
    )
    assert told(known)["ref"] == ref


@pytest.mark.parametrize(
    ("fields", "posted"),
    [
        (
            {"lookup_response": '{"success": true, "data": [1]}'},
            {"success": True, "data": [1], "task_id": "t1"},
        ),
        ({"lookup_response": None}, {"task_id": "t1", "success": True}),
        ({"lookup_response": "[1]"}, {"task_id": "t1", "success": True}),
        (
            {"lookup_status": "failed", "lookup_error": '{"code": "bad"}'},
            {"task_id": "t1", "success": False, "error": {"code": "bad"}},
        ),
        (
            {"lookup_response": "{}", "trace_id": "x", "trace_id_source": BY_LOOKUP},
            {"task_id": "t1", "success": True, "trace_id": "x"},
        ),
    ],
)
def test_upstreams_form_names_the_task_and_says_how_it_ended(fields, posted):
    known = task(**{"lookup_status": "succeeded"} | fields)
    assert json.loads(body_in_upstreams_form(known, "confirmed") or b"") == posted


def test_without_upstreams_result_there_is_nothing_to_post():
    assert body_in_upstreams_form(task(), "confirmed") is None
    assert body_in_upstreams_form(task(callback_status="pending"), "settled") is None
    assert b"forged" in (body_in_upstreams_form(task(), "settled") or b"")
