"""How many tasks a filter holds, by the tally."""

import itertools
from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger.reading.listing import TaskFilter, list_tasks
from receiver.ledger.reading.matching import count_matching
from receiver.ledger.reading.tally import fold
from tests.factories import body, failed_item, finished_item, look_up, record, register

NOW = utcnow()
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WHOLE = NOW.replace(minute=0, second=0, microsecond=0)


@pytest.fixture
def kinds(ledger):
    """Tasks of all kinds, first heard of over ten days."""
    for n in range(12):
        register(f"r{n}", now=NOW - n * 20 * HOUR, grace=timedelta(0), type="imagine")
        record(body(f"c{n}"), now=NOW - n * 19 * HOUR, confirm=True)
    register("waiting", now=NOW, grace=DAY)
    register("theirs", now=NOW, grace=DAY, service="imagined")
    look_up([finished_item("r1"), finished_item("r2"), failed_item("r3"), failed_item("c1")], NOW)


def every_choice() -> list[TaskFilter]:
    choices = itertools.product(
        (None, "midjourney", "imagined"),
        (None, "pending", "succeeded", "failed"),
        (None, "callback", "lookup"),
        (None, True, False),
        (None, True, False),
        (None, WHOLE - 30 * HOUR),
        (None, WHOLE),
    )
    return [
        TaskFilter(
            service=service,
            status=status,
            settled_by=settled_by,
            disputed=disputed,
            missed=missed,
            since=since,
            until=until,
        )
        for service, status, settled_by, disputed, missed, since, until in choices
    ]


@pytest.mark.usefixtures("kinds")
def test_it_is_what_the_list_holds_also_when_the_totals_are_folded():
    held = {wanted: len(list_tasks(wanted, 200).tasks) for wanted in every_choice()}
    assert sum(map(bool, held.values())) > 20
    assert {wanted: count_matching(wanted, NOW) for wanted in held} == held
    fold(NOW - 8 * DAY, NOW - 2 * DAY, NOW - 2 * HOUR)
    assert {wanted: count_matching(wanted, NOW) for wanted in held} == held


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    "wanted",
    [
        TaskFilter(type="imagine"),
        TaskFilter(api_key="web", status="failed"),
        TaskFilter(text="harbour"),
        TaskFilter(acknowledged=False),
        TaskFilter(since=WHOLE + timedelta(minutes=1)),
        TaskFilter(until=WHOLE + timedelta(seconds=1)),
        TaskFilter(since=WHOLE - 9 * DAY),  # those hours are folded into one
    ],
)
def test_what_the_tally_does_not_know_is_not_counted(wanted):
    assert count_matching(wanted, NOW) is None


@pytest.mark.usefixtures("ledger")
def test_those_of_one_key_are_counted():
    register("t1", "t2", api_key="web", now=NOW - HOUR)
    register("t3", api_key="batch", now=NOW)
    register("t4", api_key="web", now=NOW)
    register("t5", now=NOW)
    assert count_matching(TaskFilter(api_key="web"), NOW) == 3
    assert count_matching(TaskFilter(api_key="web", since=NOW), NOW) == 1
    assert count_matching(TaskFilter(api_key="web", until=NOW), NOW) == 2
    assert count_matching(TaskFilter(api_key="nobody"), NOW) == 0
