"""Times, sizes and states in words."""

import re
from datetime import datetime, timedelta

import pytest

from receiver.ledger.models import Task
from receiver.ledger.pace import Pace, TaskKind
from receiver.ledger.timetable import Timetable
from receiver.web import formatting

NOW = datetime(2026, 1, 31, 12, 0, 0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "just now"),
        (-1.5, "just now"),
        (42, "42 s ago"),
        (59.9, "59 s ago"),
        (60, "1 min ago"),
        (3599, "59 min ago"),
        (3600, "1 h ago"),
        (4800, "1 h 20 min ago"),
        (36060, "10 h ago"),
        (2 * 86400, "2 days ago"),
        (-50, "just now"),
        (-8 * 3600, "8 h in the future by a wrong clock"),
    ],
)
def test_it_tells_how_long_ago(seconds, words):
    assert formatting.ago(NOW - timedelta(seconds=seconds), NOW) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(20, "in 20 s"), (4800, "in 1 h 20 min"), (-60, "in a moment")]
)
def test_it_tells_in_what_time_something_comes(seconds, words):
    assert formatting.ahead(NOW + timedelta(seconds=seconds), NOW) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1234, "1.2 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
    ],
)
def test_it_tells_sizes(count, words):
    assert formatting.size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.02, "20 ms"), (0.74, "0.7 s"), (12, "12 s"), (300, "5 min")]
)
def test_it_tells_how_long_something_took(seconds, words):
    assert formatting.took(timedelta(seconds=seconds)) == words


def test_it_shows_other_peoples_texts_masked_cut_and_encodable():
    assert formatting.shown("see https://x/callbacks/s3cret/order-1") == "see https://x/callbacks/***/order-1"
    assert formatting.shown("a" * 400) == "a" * 300 + "…"
    assert formatting.shown("lone \ud800").encode() == b"lone \\ud800"


def test_it_masks_before_it_cuts():
    text = "https://x/callbacks/" + "s3cret" * 50
    assert "s3cret" not in formatting.shown(text, limit=30)


def task(**fields):
    return Task(**{"id": "t1", "status": "pending", "created_at": NOW, "silent_since": NOW} | fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "Neither a callback nor the Tasks API has reported a final result."),
        (
            {"status": "succeeded", "callback_status": "succeeded"},
            "Not confirmed: only a callback says so, and callbacks are unsigned.",
        ),
        (
            {"status": "failed", "callback_status": "failed"},
            "Not confirmed: only a callback says so."
            " Upstream may keep no record of a submission that it refused.",
        ),
        (
            {"status": "succeeded", "callback_status": "succeeded", "lookup_status": "succeeded"},
            "Confirmed: callback and Tasks API both say succeeded.",
        ),
        (
            {"status": "succeeded", "lookup_status": "succeeded"},
            "The Tasks API says succeeded. The final callback never came.",
        ),
        (
            {
                "status": "succeeded",
                "callback_status": "succeeded",
                "lookup_status": "pending",
                "doubted_at": NOW,
            },
            "Disputed: a callback says succeeded, the Tasks API has not confirmed it in time."
            " The callback may be forged: if it is, change CALLBACK_TOKEN.",
        ),
        (
            {"status": "failed", "callback_status": "succeeded", "lookup_status": "failed"},
            "Disputed: a callback says succeeded, the Tasks API says failed."
            " The Tasks API's word counts; the callback may be forged: if it is, change CALLBACK_TOKEN.",
        ),
    ],
)
def test_it_says_what_speaks_for_a_status(fields, words):
    assert formatting.trust(task(**fields)) == words


def test_where_upstream_knows_no_task_another_account_is_likelier_than_a_forger():
    claimed = {"status": "succeeded", "callback_status": "succeeded", "doubted_at": NOW}
    words = formatting.trust(task(**claimed), knows_none=True)
    assert "Most likely ACEDATACLOUD_API_TOKEN belongs to another account" in words
    assert "forged" not in words
    # Of this one upstream has told: it knows it.
    assert "forged" in formatting.trust(task(**claimed, lookup_status="failed"), knows_none=True)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"next_lookup_at": NOW}, "Due now: the next run asks."),
        (
            {"next_lookup_at": NOW + timedelta(minutes=2)},
            "In 2 min, unless a callback settles it before.",
        ),
        (
            {"next_lookup_at": NOW + timedelta(minutes=4), "attempts": 3},
            "In 4 min, after 3 look-ups without a final result.",
        ),
        (
            {"next_lookup_at": NOW + timedelta(minutes=4), "status": "succeeded"},
            "In 4 min, to confirm what the callback says.",
        ),
        (
            {"status": "expired", "gave_up_at": NOW},
            "None: Backstop gave up asking. A late callback may still settle it.",
        ),
        ({"status": "failed", "lookup_status": "failed"}, "None: upstream has given its final answer."),
        (
            {"status": "failed", "callback_status": "failed"},
            "None: the callback's result was accepted without a look-up.",
        ),
    ],
)
def test_it_says_when_and_why_the_next_lookup_comes(fields, words):
    assert formatting.next_lookup(task(**fields), NOW, None) == words


def test_it_says_what_keeps_the_reconciler_from_asking():
    due, later = task(next_lookup_at=NOW), task(next_lookup_at=NOW + timedelta(minutes=2))
    why = "the reconciler has never run"
    assert formatting.next_lookup(due, NOW, why) == "Due, but the reconciler has never run."
    assert formatting.next_lookup(later, NOW, why) == formatting.next_lookup(later, NOW, None)


class TestUsualTime:
    KIND = TaskKind("suno", "audios", "fast")

    def test_it_tells_the_usual_time_and_that_of_nine_in_ten(self):
        pace = Pace().with_results(float(seconds) for seconds in range(60, 160))
        told = formatting.usual_time(self.KIND, Timetable(timedelta(seconds=30), {self.KIND: pace}))
        assert told.startswith("Tasks of the kind “fast audios” take 1 min ")
        assert re.search(r" as a rule, nine of ten less than 2 min \d\d s\.$", told)

    def test_of_a_wider_kind_it_tells_that_ones_name(self):
        pace = Pace().with_results([20.0] * 50)
        for known, name in ((TaskKind("suno", "audios"), "audios"), (TaskKind("suno"), "suno")):
            told = formatting.usual_time(self.KIND, Timetable(timedelta(seconds=30), {known: pace}))
            assert f"“{name}”" in told

    def test_it_says_when_that_is_not_known(self):
        told = formatting.usual_time(self.KIND, Timetable(timedelta(seconds=30)))
        assert told == "How long such tasks take is not known yet."
