"""What a task's own columns say of it, without a database."""

from datetime import datetime, timedelta

import pytest

from receiver.ledger.models import ReconcileRun, Task

NOW = datetime(2026, 1, 31, 12)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


def task(**known) -> Task:
    return Task(id="t1", service="midjourney", created_at=NOW, silent_since=NOW, **known)


class TestWitness:
    @pytest.mark.parametrize(
        ("known", "witness"),
        [
            ({"callback_key": b"\2", "lookup_key": b"\1", "lookup_status": "failed"}, "lookup"),
            ({"callback_key": b"\2", "lookup_key": b"\1", "lookup_status": "pending"}, "callback"),
            ({"callback_key": b"\0", "lookup_key": b"\1", "lookup_status": "pending"}, "lookup"),
            ({}, "callback"),
        ],
    )
    def test_a_final_look_up_counts_else_the_witness_that_told_more(self, known, witness):
        assert task(**known).witness == witness

    @pytest.mark.parametrize(("lookup_status", "shown"), [("failed", "lookup"), (None, "callback")])
    def test_what_is_shown_is_what_the_witness_told(self, lookup_status, shown):
        told = {
            f"{witness}_{name}": witness
            for witness in ("callback", "lookup")
            for name in ("progress", "response", "error")
        }
        one = task(**told, lookup_status=lookup_status, callback_key=b"\2")
        assert (one.progress, one.response, one.error) == (shown, shown, shown)


class TestDispute:
    @pytest.mark.parametrize(
        ("callback", "lookup", "doubted", "confirmed", "disputed"),
        [
            ("succeeded", "succeeded", False, True, False),
            ("succeeded", "failed", False, False, True),
            ("failed", "succeeded", True, False, True),
            ("succeeded", "succeeded", True, True, False),
            ("succeeded", "pending", True, None, True),
            ("succeeded", None, True, None, True),
            ("succeeded", None, False, None, False),
            ("pending", "failed", False, True, False),
            (None, "succeeded", False, True, False),
        ],
    )
    def test_witnesses_that_contradict_each_other_and_doubt(
        self, callback, lookup, doubted, confirmed, disputed
    ):
        one = task(callback_status=callback, lookup_status=lookup, doubted_at=NOW if doubted else None)
        assert (one.confirmed, one.disputed) == (confirmed, disputed)


class TestTook:
    @pytest.mark.parametrize(
        ("submitted_at", "registered_at", "settled_at", "took"),
        [
            (NOW - MINUTE, NOW - SECOND, NOW, MINUTE),
            (None, NOW - SECOND, NOW, SECOND),
            (None, None, NOW, None),  # a callback was the first to name it
            (NOW + MINUTE, None, NOW, timedelta(0)),  # another clock's
            (NOW, NOW, None, None),
        ],
    )
    def test_it_is_the_time_from_submission_to_result(self, submitted_at, registered_at, settled_at, took):
        assert (
            task(submitted_at=submitted_at, registered_at=registered_at, settled_at=settled_at).took == took
        )


class TestRun:
    def test_its_counts_add_up(self):
        run = ReconcileRun(due=9, asked=8, settled=1, confirmed=2, running=1, absent=1)
        assert (run.unanswered, run.left) == (3, 1)

    @pytest.mark.parametrize(
        ("ago", "noted_ago", "finished", "in_progress"),
        [
            (MINUTE, None, False, True),
            (5 * MINUTE, None, False, False),
            (5 * MINUTE, MINUTE, False, True),
            (MINUTE, None, True, False),
        ],
    )
    def test_one_that_was_silent_for_long_has_died(self, ago, noted_ago, finished, in_progress):
        run = ReconcileRun(
            started_at=NOW - ago,
            noted_at=NOW - noted_ago if noted_ago else None,
            finished_at=NOW if finished else None,
        )
        assert run.is_in_progress(NOW) == in_progress
