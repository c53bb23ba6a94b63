"""Look-ups through the gateway: what is answered from the ledger, what upstream is asked, in what form."""

from datetime import timedelta

import pytest

from receiver.clock import utcnow
from tests.factories import (
    look_up,
    register,
    sample,
)

OURS = "https://us.example/callbacks/***/order-1"
SEED = sample("retrieve_seed.json")


@pytest.fixture
def ask(gateway, auth):
    """Ask the gateway about Midjourney tasks, and return what it answers."""

    def ask(path: str = "/midjourney/tasks", **asked):
        return gateway.post(path, json=asked, headers=auth)

    return ask


def settle(*items) -> None:
    for one in items:
        register(one["id"], now=utcnow() - timedelta(minutes=5))
    look_up(items)


def test_a_settled_task_comes_back_field_by_field_and_costs_upstream_nothing(ask, upstream):
    settle(SEED)
    answer = ask(action="retrieve", id=SEED["id"])
    assert {name: answer.json[name] for name in SEED} == SEED
    assert answer.json.keys() - SEED.keys() == {"success", "image_url"}
    assert upstream.received == []
