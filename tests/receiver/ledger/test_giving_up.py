"""A task that is given up with a result in hand, without a database."""

from datetime import datetime, timedelta

import pytest

from receiver.ledger import evidence, giving_up
from receiver.ledger.evidence import ABSENT, Answer
from receiver.ledger.kinds import IN_HAND, LOOKUP
from receiver.ledger.models import Task
from receiver.ledger.patience import Patience
from receiver.upstream.results import read_item
from tests.factories import DAY, GRACE, item

NOW = datetime(2026, 1, 31, 12)
PICTURE, SONG = '{"image_url": "https://x/1.png"}', '{"data": [{"audio_url": "https://x/1.mp3"}]}'


def task(**known) -> Task:
    known = {"silent_since": NOW - 2 * DAY, "late_answers": 2} | known
    return Task(id="t1", service="midjourney", created_at=NOW - 3 * DAY, **known)


def last_lookup(before: Task, response: dict[str, str] | None = None):
    patience = Patience(lambda *_: timedelta(hours=1), give_up_after=DAY, doubt_after=GRACE)
    answer = Answer(read_item(item("t1", response))) if response else Answer(error=ABSENT)
    said = evidence.of_lookup(before, answer, NOW, patience, ())
    assert said["gave_up_at"] == NOW
    return said


class TestLookUps:
    @pytest.mark.parametrize("response", [PICTURE, SONG])
    def test_what_an_earlier_one_told_settles_the_task(self, response):
        before = task(lookup_response=response)
        said = giving_up.with_result_in_hand(last_lookup(before), before, NOW)
        assert said.keys() == LOOKUP.columns
        assert (said["status"], said["lookup_status"], said["lookup_response"]) == (
            *("succeeded", "succeeded"),
            response,
        )
        assert (said["settled_by"], said["settled_at"], said["gave_up_at"]) == ("lookup", NOW, None)

    def test_what_the_last_one_told_counts_first(self):
        before = task(lookup_response=PICTURE)
        last = last_lookup(before, {"image_url": "https://x/2.png"})
        said = giving_up.with_result_in_hand(last, before, NOW)
        assert "2.png" in (said["lookup_response"] or "")

    @pytest.mark.parametrize(
        "known",
        [
            {},
            {"lookup_response": '{"success": true}'},
            {"lookup_response": PICTURE, "lookup_progress": 42},
            {"callback_response": PICTURE},
        ],
    )
    def test_without_one_in_hand_the_task_is_given_up(self, known):
        before = task(**known)
        said = last_lookup(before)
        assert giving_up.with_result_in_hand(said, before, NOW) == said


class TestCallbacks:
    def test_what_one_told_counts_as_its_word(self):
        said = giving_up.of_callback_in_hand(task(callback_status="pending", callback_response=PICTURE), NOW)
        assert said is not None
        assert said.keys() == IN_HAND.columns
        assert (said["status"], said["callback_status"]) == ("succeeded", "succeeded")
        assert (said["settled_by"], said["settled_at"]) == ("callback", NOW)

    @pytest.mark.parametrize(
        "known",
        [
            {},
            {"callback_response": PICTURE, "callback_progress": 42},
            {"callback_response": PICTURE, "callback_status": "failed"},
            {"callback_response": PICTURE, "lookup_status": "failed"},
            {"lookup_response": PICTURE},
        ],
    )
    def test_else_they_say_nothing(self, known):
        assert giving_up.of_callback_in_hand(task(**known), NOW) is None
