"""The part of upstream's list that a discovery reads: its end, and where the next page begins."""

from datetime import UTC, datetime, timedelta

from reconcile.window import Window

NOW = datetime(2026, 1, 31, 12)
MINUTE = timedelta(minutes=1)


def page(*moments: datetime) -> list[dict[str, float]]:
    return [{"created_at": moment.replace(tzinfo=UTC).timestamp()} for moment in moments]


def test_before_the_first_page_it_has_no_end():
    assert Window(NOW).until is None


def test_its_end_is_the_newest_task_and_stays_there():
    window = Window(NOW - 60 * MINUTE)
    assert window.advance(page(NOW - 2 * MINUTE, NOW - MINUTE), NOW) == [NOW - MINUTE, NOW - 2 * MINUTE]
    window.advance(page(NOW - 3 * MINUTE), NOW + MINUTE)
    assert (window.end, window.until) == (NOW - MINUTE, NOW - MINUTE + timedelta(seconds=1))
    assert (window.listed, window.offset) == (3, 3)


def test_a_task_with_a_wrong_time_is_not_its_end():
    window = Window(NOW - 60 * MINUTE)
    window.advance(page(NOW + timedelta(days=400), NOW - MINUTE), NOW)
    assert window.end == NOW - MINUTE
    assert window.until == NOW - MINUTE + timedelta(seconds=1)


def test_tasks_that_seem_to_be_of_the_future_are_read_and_counted_apart():
    window = Window(NOW - 60 * MINUTE)
    window.advance(page(NOW + 5 * MINUTE, NOW - MINUTE), NOW)
    assert window.until == NOW + 5 * MINUTE + timedelta(seconds=1)
    assert (window.end, window.listed, window.offset) == (NOW - MINUTE, 1, 2)


def test_what_is_no_task_or_has_no_time_is_gone_past():
    window = Window(NOW - 60 * MINUTE)
    assert window.advance(["no task", {"created_at": None}], NOW) == []
    assert (window.end, window.offset) == (NOW, 2)
