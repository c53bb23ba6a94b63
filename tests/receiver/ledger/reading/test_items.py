"""Tasks for those who ask us instead of upstream."""

from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import store
from receiver.ledger.models import Task
from receiver.ledger.reading.items import find_items, find_settled, should_ask
from tests.factories import GRACE, body, failed_item, finished_item, item, look_up, record, register, task

pytestmark = pytest.mark.usefixtures("ledger")
NOW = utcnow()
MINUTE, FRESH = timedelta(minutes=1), timedelta(seconds=5)


def asked_of(task_id: str = "t1", now=NOW, confirm: bool = True) -> bool:
    return should_ask(task(task_id), now, FRESH, confirm)


def test_tasks_are_found_by_id_and_by_trace_id_within_their_service():
    register("t1", "t2", now=NOW)
    register("t3", now=NOW, service="suno")
    look_up([item("t1", trace_id="a"), item("t2", trace_id="b")], NOW + GRACE)
    assert find_items("midjourney", "id", ["t1"]).keys() == {"t1"}
    assert find_items("midjourney", "id", ["t1", "t2", "t3", "x"]).keys() == {"t1", "t2"}
    assert find_items("midjourney", "trace_id", ["b"])["b"].id == "t2"
    assert {one.id for one in find_items("midjourney", "trace_id", ["b", "a"]).values()} == {"t1", "t2"}
    assert find_items("suno", "id", ["t1"]) == {}


@pytest.mark.parametrize("names", [["a"], ["a", "b"]])
def test_of_two_tasks_with_one_trace_id_the_newer_counts(names):
    register("old", now=NOW - MINUTE, trace_id="a")
    register("new", now=NOW, trace_id="a")
    assert find_items("midjourney", "trace_id", names)["a"].id == "new"


def test_a_task_is_settled_once_upstream_has_said_its_last_word():
    register("t1", "t2", "t3", now=NOW - MINUTE)
    record(body("t3"), now=NOW)
    look_up([finished_item("t1"), failed_item("t2")], NOW + GRACE)
    for task_id, status in (("t1", "succeeded"), ("t2", "failed")):
        found, known = find_settled(task_id), task(task_id)
        assert found == (
            *(task_id, "midjourney", status, known.lookup_response, known.request),
            *(known.lookup_envelope, None),
        )
    assert find_settled("t3") is None
    assert find_settled("unknown") is None


class TestShouldAsk:
    def test_not_about_a_task_that_was_just_heard_of_or_asked_about(self):
        register("t1", now=NOW)
        assert not asked_of(now=NOW + timedelta(seconds=4))
        assert asked_of(now=NOW + timedelta(seconds=5))
        look_up([item("t1")], NOW + GRACE)
        assert not asked_of(now=NOW + GRACE)
        assert asked_of(now=NOW + GRACE + FRESH)

    def test_not_after_upstreams_last_word_or_a_refusal(self):
        register("t1", "t2", now=NOW - GRACE)
        look_up([finished_item("t1"), item("t2")], NOW)
        Task.update(refused_at=NOW).where(Task.id == "t2").execute()
        assert not asked_of("t1", NOW + MINUTE)
        assert not asked_of("t2", NOW + MINUTE)

    def test_a_callbacks_word_is_confirmed_unless_the_operator_wants_none(self):
        register("t1", now=NOW - MINUTE)
        record(body("t1"), now=NOW - MINUTE, confirm=True)
        assert asked_of(confirm=True)
        assert not asked_of(confirm=False)

    def test_not_about_a_task_of_which_nobody_has_told_the_service(self):
        record(body("t1"), now=NOW - MINUTE, confirm=True)
        assert not asked_of()

    def test_not_while_somebody_asks(self):
        register("t1", now=NOW - MINUTE)
        store.claim_these("midjourney", ["t1"], NOW, MINUTE)
        assert not asked_of(now=NOW + MINUTE / 2)
        assert asked_of(now=NOW + 2 * MINUTE)


class TestClaimThese:
    def test_it_takes_open_tasks_whether_they_are_due_or_not(self):
        register("due", now=NOW - MINUTE, grace=timedelta(0))
        register("later", "settled", "refused", now=NOW - MINUTE)
        register("theirs", now=NOW - MINUTE, service="suno")
        record(body("told"), now=NOW - MINUTE, confirm=True)
        store.ask_now("settled", NOW - MINUTE)
        Task.update(lookup_status="succeeded").where(Task.id == "settled").execute()
        Task.update(refused_at=NOW).where(Task.id == "refused").execute()
        ids = ["due", "later", "settled", "refused", "theirs", "told", "unknown"]
        claimed = store.claim_these("midjourney", ids, NOW, MINUTE)
        assert sorted(claimed.ids) == ["due", "later", "told"]
        assert {(task(name).next_lookup_at, task(name).leased_until) for name in claimed.ids} == {
            (NOW + MINUTE, NOW + MINUTE)
        }

    def test_two_never_ask_about_one_task_at_once(self):
        register("t1", now=NOW - 10 * MINUTE)
        assert store.claim(NOW, limit=5, lease=2 * MINUTE).ids == ["t1"]
        assert store.claim_these("midjourney", ["t1"], NOW, MINUTE).tasks == ()
        assert store.claim_these("midjourney", ["t1"], NOW + 3 * MINUTE, MINUTE).ids == ["t1"]
        assert store.claim(NOW + 3 * MINUTE, limit=5, lease=MINUTE).tasks == ()

    def test_a_lease_that_lapses_leaves_the_task_to_the_reconciler(self):
        register("t1", now=NOW - MINUTE)
        store.claim_these("midjourney", ["t1"], NOW, MINUTE)
        assert store.claim(NOW + MINUTE, limit=5, lease=MINUTE).ids == ["t1"]
