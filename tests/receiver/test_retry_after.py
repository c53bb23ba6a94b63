from datetime import timedelta

import pytest

from receiver.retry_after import parse_retry_after


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), (" 0 ", 0), ("9" * 30, 999_999_999), ("Fri, 01 Jan 2010 00:00:00 GMT", 0)],
)
def test_it_reads_seconds_and_dates(text: str, seconds: int):
    assert parse_retry_after(text) == timedelta(seconds=seconds)


def test_a_date_to_come_is_a_wait():
    assert parse_retry_after("Fri, 01 Jan 2100 00:00:00 GMT") > timedelta(days=365)


@pytest.mark.parametrize("text", [None, "", "soon", "-5", "1.5", "²", "Fri, 31 Dec 9999 23:59:59 -2300"])
def test_anything_else_says_nothing(text: str | None):
    assert parse_retry_after(text) is None
