"""Whatever order evidence comes in, and however often: the same task comes out."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.clock import utcnow
from receiver.ledger import record as recording
from receiver.ledger import store
from receiver.ledger.models import Task, database
from receiver.ledger.reading import queries
from receiver.ledger.task_json import task_json
from tests.factories import (
    body,
    failed_item,
    failure_body,
    finished_item,
    item,
    look_up,
    progress_body,
    record,
    register,
)
from tests.properties import on_a_ledger

pytestmark = pytest.mark.usefixtures("ledger")

Step = Callable[[str], Any]


def callback(make: Callable[..., bytes], ref: str | None = None, **fields: Any) -> Step:
    return lambda task_id: record(make(task_id, **fields), ref=ref)


def asked(make: Callable[..., dict[str, Any]], **fields: Any) -> Step:
    def step(task_id: str) -> None:
        # As when somebody asks now: a look-up may come at any moment, also for a task never heard of.
        register(task_id) if queries.find_task(task_id) is None else None
        store.ask_now(task_id, utcnow() - timedelta(seconds=1))
        look_up([make(task_id, **fields)])

    return step


STEPS: list[Step] = [
    callback(body),
    callback(body, ref="order-b", image_url="https://x/other.png"),
    callback(body, ref="order-a", progress=100, trace_id="trace-b"),
    callback(failure_body),
    callback(failure_body, code="used_up"),
    callback(progress_body, progress=30),
    callback(progress_body, progress=80, trace_id="trace-a"),
    asked(item),
    asked(item, response={"progress": 50}, type="edits"),
    asked(item, response={"success": False, "error": "hiccup"}),
    asked(finished_item, trace_id="trace-c", request={"prompt": "p"}),
    asked(finished_item, state="finished", request={"prompt": "q"}),
    asked(failed_item),
    asked(failed_item, code="disabled"),
    partial(register, type="imagine"),
    partial(register, type="Edits", ref="order-c"),
]
SHOWN = (
    "type",
    "ref",
    "trace_id",
    "status",
    "progress",
    "confirmed",
    "disputed",
    "request",
    "response",
    "error",
)


@contextmanager
def rolled_back() -> Iterator[None]:
    # Callbacks are written in this thread too: the writer's would wait for the end of this transaction.
    commits = recording._commits
    written_here = mock.patch.object(commits, "commit", lambda item: commits._write([item])[0])
    with written_here, database.connection_context(), database.atomic() as transaction:
        yield
        transaction.rollback()


def outcome(steps: list[Step]) -> dict[str, Any]:
    with rolled_back():
        for step in steps:
            step("t1")
        shown = task_json(Task.get(Task.id == "t1"))
    return {name: shown[name] for name in SHOWN}


@on_a_ledger
@given(st.data())
def test_any_permutation_with_any_repetition_leaves_the_same_task(data: st.DataObject):
    some = data.draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=5, unique=True))
    again = data.draw(st.lists(st.sampled_from(some), max_size=4))
    shuffled = data.draw(st.permutations(some + again))
    assert outcome(shuffled) == outcome(some)


@pytest.mark.parametrize("numbers", [(0, 3, 6), (3, 4, 5), (5, 6, 2), (7, 8, 9), (7, 10, 11), (8, 14, 15)])
def test_every_order_of_three_of_a_kind(numbers: tuple[int, ...]):
    outcomes = [outcome([STEPS[n] for n in order]) for order in itertools.permutations(numbers)]
    assert all(one == outcomes[0] for one in outcomes)


def test_every_order_of_a_callback_and_look_ups_that_contradict_each_other():
    some = [STEPS[n] for n in (0, 3, 5, 8, 12)]
    outcomes = [outcome(list(order)) for order in itertools.permutations(some)]
    assert all(one == outcomes[0] for one in outcomes)
    assert (outcomes[0]["status"], outcomes[0]["disputed"]) == ("failed", True)


@pytest.mark.parametrize(
    ("steps", "status", "confirmed"),
    [
        ((5,), "pending", None),
        ((5, 3), "failed", None),
        ((5, 3, 0), "succeeded", None),
        ((0, 8), "succeeded", None),
        ((0, 10), "succeeded", True),
        ((3, 10), "succeeded", False),
        ((0, 12), "failed", False),
        ((0, 12, 10), "succeeded", True),
        ((12,), "failed", True),
    ],
)
def test_status_is_a_function_of_the_two_witnesses(
    steps: tuple[int, ...], status: str, confirmed: bool | None
):
    result = outcome([STEPS[n] for n in steps])
    assert (result["status"], result["confirmed"], result["disputed"]) == (
        status,
        confirmed,
        confirmed is False,
    )


def test_a_fact_comes_from_its_best_source():
    result = outcome([callback(body, ref="a", trace_id="a"), asked(item, type="a", trace_id="b"), STEPS[15]])
    assert (result["type"], result["ref"], result["trace_id"]) == ("Edits", "order-c", "b")


def test_within_one_source_the_bytewise_smallest_counts():
    assert outcome([STEPS[14], STEPS[15]])["type"] == "Edits"


def envelope_after(*items: dict[str, Any]) -> Any:
    with rolled_back():
        for fields in items:
            asked(lambda task_id, fields=fields: {"id": task_id, **fields})("t1")
        return Task.get(Task.id == "t1").lookup_envelope


def test_the_envelope_is_that_of_the_result_whatever_came_first():
    running = {"type": "imagine", "response": None, "hold": True}
    done = {"response": {"success": True, "image_url": "https://x/1.png"}, "finished_at": 1.5, "extra": [1]}
    told = {envelope_after(*order) for order in itertools.permutations([running, done, done])}
    assert told == {'{"id":"t1","finished_at":1.5,"extra":[1]}'}


def test_of_two_envelopes_of_one_result_the_smallest_is_kept():
    done = {"response": {"success": True, "image_url": "https://x/1.png"}, "finished_at": 1.5}
    one, other = done | {"elapsed": 2}, done | {"elapsed": 3}
    told = {envelope_after(one, other), envelope_after(other, one), envelope_after(one, {"response": None})}
    assert told == {'{"id":"t1","finished_at":1.5,"elapsed":2}'}
