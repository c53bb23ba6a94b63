"""The envelope of an item: what stands beside its response and request."""

import json
from typing import Any

import pytest

from receiver.upstream.results import read_item
from tests.factories import sample


def envelope(item: dict[str, Any]) -> Any:
    told = read_item(item).envelope
    return None if told is None else json.loads(told)


def test_it_keeps_all_fields_unknown_ones_included():
    seed = sample("retrieve_seed.json")
    beside = {name: value for name, value in seed.items() if name not in {"response", "request"}}
    assert envelope(seed) == beside
    assert envelope(seed | {"new_field": [1, {"a": None}]}) == beside | {"new_field": [1, {"a": None}]}


@pytest.mark.parametrize("name", ["response", "request"])
def test_it_tells_how_an_empty_response_or_request_was_given(name):
    given = {"id": "t1", "response": {"success": True}, "request": {"prompt": "x"}}
    rest = {key: value for key, value in given.items() if key != name}
    assert envelope(rest) == {"id": "t1"}
    assert envelope(given | {name: None}) == {"id": "t1", name: None}
    assert envelope(given | {name: {}}) == {"id": "t1", name: {}}


def test_an_item_that_is_its_own_response_has_none_beside_it():
    assert envelope(sample("services/digital-human_poll_flat.json")) == {}
    assert envelope(sample("services/minimax_retrieve_finished.json")) == {}


def test_it_masks_callback_tokens():
    told = envelope({"id": "t1", "response": None, "hook": "https://us.example/callbacks/secret-token/order"})
    assert told["hook"] == "https://us.example/callbacks/***/order"


def test_it_is_bounded():
    long = envelope({"id": "t1", "response": None, "picture": "x" * 100_000})
    assert long["id"] == "t1"
    assert len(long["picture"]) < 200
    assert envelope({"id": "t1", "response": None} | {f"n{n}": n for n in range(5000)}) is None
