from datetime import datetime, timedelta

import pytest

from receiver.clock import parse_since

NOW = datetime(2026, 3, 1, 12)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("2h", NOW - timedelta(hours=2)),
        (" 3d ", NOW - timedelta(days=3)),
        ("0m", NOW),
        ("2026-02-28T10:00:00Z", datetime(2026, 2, 28, 10)),
        ("2026-02-28T10:00:00+02:00", datetime(2026, 2, 28, 8)),
        ("2026-02-28", datetime(2026, 2, 28)),
    ],
)
def test_it_reads_spans_and_moments(text, moment):
    assert parse_since(text, NOW) == moment


@pytest.mark.parametrize(
    "text", ["", "2", "h", "-2h", "2w", "1.5h", "yesterday", "2026-02-30", "0001-01-01T00:00:00+10:00"]
)
def test_it_refuses_what_is_neither(text):
    with pytest.raises(ValueError, match="is neither a time like 90m, 2h or 3d nor a moment like"):
        parse_since(text, NOW)


@pytest.mark.parametrize("text", ["2026-03-01T12:00:01Z", "1999-12-31", "999999h", "99999d"])
def test_it_refuses_what_no_task_can_be_as_old_as(text):
    with pytest.raises(ValueError, match="not between the year 2000 and now"):
        parse_since(text, NOW)
