from datetime import datetime, timedelta

import pytest

from receiver.upstream.date import Comparison

NOW = datetime(2026, 1, 31, 12)
DATE = "Sat, 31 Jan 2026 12:00:00 GMT"


class Clocks:
    """The machine's two clocks, as they were set."""

    def __init__(self, ahead: timedelta) -> None:
        self.ahead, self.passed = ahead, 0.0

    def compare(self) -> Comparison:
        return Comparison(
            lambda: NOW + self.ahead + timedelta(seconds=self.passed), lambda: 1000.0 + self.passed
        )


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=2), timedelta(minutes=-6)])
def test_it_tells_how_far_our_clock_is_ahead(ahead):
    clocks = Clocks(ahead)
    comparison = clocks.compare()
    assert comparison.ahead is None
    comparison.note(DATE)
    clocks.passed = 3600
    assert comparison.ahead == ahead


def test_a_clock_that_was_set_right_is_right_before_the_next_answer():
    clocks = Clocks(timedelta(days=2))
    comparison = clocks.compare()
    comparison.note(DATE)
    clocks.ahead = timedelta(0)
    assert comparison.ahead == timedelta(0)


@pytest.mark.parametrize("date", [None, "", "yesterday", "Sat, 31 Jan 99999 12:00:00 GMT", "x" * 5000])
def test_an_answer_without_a_readable_date_tells_nothing(date):
    comparison = Clocks(timedelta(days=2)).compare()
    comparison.note(date)
    assert comparison.ahead is None
