"""Items as upstream gives them, from what the ledger keeps: pure."""

import json
from typing import Any

import pytest

from receiver.upstream.items import Known, item_of, presented
from receiver.upstream.results import read_item
from receiver.upstream.services import DEFAULT, SERVICES, Service
from tests.factories import SAMPLES, sample

FINISHED = sorted(path.name for path in (SAMPLES / "services").glob("*_item_finished*.json"))
MASKED = "https://us.example/callbacks/***/order-1"


def known(item: dict[str, Any], **fields: Any) -> Known:
    """Return what the ledger keeps of an item."""
    result = read_item(item)
    return Known(
        result.task_id,
        result.status,
        response=result.response,
        request=result.request,
        envelope=result.envelope,
        **fields,
    )


def service_of(name: str) -> Service:
    return SERVICES[name.partition("_")[0]]


@pytest.mark.parametrize("name", FINISHED)
def test_each_services_item_comes_back_field_by_field(name):
    item, service = sample(f"services/{name}"), service_of(name)
    given = item_of(known(item), service)
    assert {field: given[field] for field in item} == item
    assert given.keys() - item.keys() <= set(service.form.finished_adds)


@pytest.mark.parametrize("name", ["digital-human_poll_flat", "minimax_retrieve_finished"])
def test_an_item_that_is_its_own_response_comes_back_as_it_is(name):
    item = sample(f"services/{name}.json")
    assert item_of(known(item), service_of(name)) == item.get("task", item)


@pytest.mark.parametrize("fields", [{}, {"response": None}, {"response": {}}, {"response": {"progress": 3}}])
def test_what_runs_has_upstreams_own_form_except_where_clients_need_another(fields):
    item = {"id": "t1", "request": {"prompt": "x"}} | fields
    assert item_of(known(item), SERVICES["seedream"]) == item
    assert item_of(known(item), DEFAULT) == item | {"response": {}}
    assert presented(item, SERVICES["seedream"]) == item
    assert presented(item, DEFAULT) == item | {"response": {}}


@pytest.mark.parametrize(
    ("service", "added"),
    [
        ("suno", {}),
        ("veo", {"state": "succeeded"}),
        ("hailuo", {"status": "succeeded"}),
        ("luma", {"data": {"success": True, "image_url": "https://x/1", "state": "succeeded"}}),
        ("midjourney", {"success": True, "image_url": "https://x/1"}),
    ],
)
def test_a_finished_item_has_what_the_services_clients_wait_for(service, added):
    item = {"id": "t1", "finished_at": 1.0, "response": {"success": True, "image_url": "https://x/1"}}
    assert item_of(known(item), SERVICES[service]) == item | added
    assert presented(item, SERVICES[service]) == item | added


@pytest.mark.parametrize(
    ("service", "added"),
    [
        ("veo", {"state": "failed"}),
        ("hailuo", {"status": "failed"}),
        ("midjourney", {"success": False, "error": {"code": "bad_request", "message": "no"}}),
    ],
)
def test_so_has_a_failed_one(service, added):
    error = {"code": "bad_request", "message": "no"}
    item = {"id": "t1", "finished_at": 1.0, "response": {"success": False, "error": error}}
    assert item_of(known(item), SERVICES[service]) == item | added


def test_the_first_entry_of_a_list_of_results_stands_for_them():
    item = sample("services/sora_item_finished.json")
    data = item_of(known(item), SERVICES["sora"])["data"]
    assert data == item["response"]["data"][0] | {"state": "succeeded"}


def test_what_is_added_never_replaces_what_upstream_gave():
    item = {"id": "t1", "state": "theirs", "finished_at": 1.0, "response": {"success": True, "url": "x"}}
    assert item_of(known(item), SERVICES["veo"])["state"] == "theirs"


@pytest.mark.parametrize(
    ("callback_url", "own", "given"),
    [
        (MASKED, None, {"prompt": "x"}),
        (MASKED, "https://app.example/hook", {"prompt": "x", "callback_url": "https://app.example/hook"}),
        ("https://other.example/hook", None, {"prompt": "x", "callback_url": "https://other.example/hook"}),
        ("dummy", None, {"prompt": "x", "callback_url": "dummy"}),
        (None, None, {"prompt": "x", "callback_url": None}),
    ],
)
def test_our_callback_url_is_taken_out_or_the_callers_own_is_given_back(callback_url, own, given):
    item = {"id": "t1", "request": {"prompt": "x", "callback_url": callback_url}, "response": None}
    assert item_of(known(item, callback_url=own), DEFAULT)["request"] == given
    assert presented(item, DEFAULT, own) == {"id": "t1", "request": given, "response": {}}


def test_what_is_no_item_comes_back_masked():
    assert presented({"x": "https://us.example/callbacks/secret"}, DEFAULT) == {
        "x": "https://us.example/callbacks/***"
    }
    assert presented([1], DEFAULT) == [1]


def test_a_result_that_only_a_callback_told_is_composed():
    told = Known("t1", "succeeded", response=json.dumps({"success": True, "image_url": "u"}), type="imagine")
    assert item_of(told, DEFAULT) == {
        "id": "t1",
        "type": "imagine",
        "response": {"success": True, "image_url": "u"},
        "success": True,
        "image_url": "u",
    }
    flat = Known("t1", "succeeded", response=json.dumps({"task_id": "t1", "video_url": "u"}))
    assert item_of(flat, SERVICES["digital-human"]) == {"task_id": "t1", "video_url": "u"}
