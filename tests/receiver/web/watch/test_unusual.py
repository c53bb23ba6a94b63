"""The rules on what is far from usual."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from receiver.ledger.refusals import NOT_KEPT, Refused
from receiver.web.disk_room import Room, tightest
from receiver.web.watch.facts import Facts, Missing
from receiver.web.watch.unusual import is_far_above_usual, notices

NOW = datetime(2026, 1, 31, 12)
GB = 2**30


@pytest.mark.parametrize(
    ("missing", "is_far"),
    [
        (Missing(30, 100, 50, 1000), True),
        (Missing(9, 10, 0, 1000), False),  # too few to tell
        (Missing(14, 100, 50, 1000), False),  # less than 10 points above 5 %
        (Missing(80, 100, 300, 1000), False),  # less than three times 30 %
        (Missing(30, 100, 0, 0), True),
        (Missing(0, 0, 0, 0), False),
    ],
)
def test_missing_callbacks(missing, is_far):
    assert is_far_above_usual(missing) == is_far


@pytest.mark.parametrize(
    ("free", "total", "is_full"),
    [
        (3 * GB, 1000 * GB, False),
        (1 * GB, 1000 * GB, True),
        (2 * GB, 20 * GB, False),
        (GB // 2, 20 * GB, True),
        (GB // 8, GB, True),
        (GB // 4, GB, False),
    ],
)
def test_a_disk(free, total, is_full):
    assert Room("/data", free, total).is_nearly_full == is_full


def test_a_large_disk_that_is_nearly_full_is_told_before_a_small_one_with_less_room_that_is_not():
    small, large = Room("/spool", GB // 4, GB), Room("/data", GB, 1000 * GB)
    assert tightest([small, large]) == large
    assert tightest([small]) == small
    assert tightest([]) is None


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (None, None),
        (timedelta(minutes=5), None),
        (timedelta(minutes=-5), None),
        (timedelta(days=3), "the reconciler's clock is 3 days ahead of upstream's"),
        (timedelta(minutes=-6), "the reconciler's clock is 6 min behind upstream's"),
    ],
)
def test_a_clock_that_is_minutes_off_is_told(ahead, said):
    told = [one for one in notices(Facts(now=NOW, interval=timedelta(0), clock_ahead=ahead)) if one]
    assert [one.text.partition(":")[0] for one in told] == [*filter(None, [said])]


def test_callbacks_that_were_refused_here_are_named_as_a_cause_of_missing_ones():
    known = Facts(NOW, timedelta(seconds=15), missing=Missing(30, 100, 0, 0))
    lost = replace(known, refused={NOT_KEPT: Refused(NOT_KEPT, 20, NOW, NOW)})
    (plain,), (told,) = (filter(None, notices(facts)) for facts in (known, lost))
    assert "refused" not in plain.text
    assert "In the last 24 h 20 callbacks were refused and lost here." in told.text
