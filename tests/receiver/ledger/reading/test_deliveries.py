"""Lists of deliveries: what they hold, in which order, and how the database finds it."""

import itertools
from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger.engine.db import on_postgresql
from receiver.ledger.models import Delivery, Task
from receiver.ledger.reading import deliveries
from receiver.ledger.reading.deliveries import DeliveryFilter, list_deliveries, newest_places
from tests.factories import body, failure_body, progress_body, record
from tests.receiver.ledger.reading.test_listing import plan_of

NOW = utcnow().replace(microsecond=0)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def twenty(ledger):
    """Twenty deliveries of all kinds; several came at one moment, and not in the order of their numbers."""
    makers = (body, progress_body, failure_body, lambda task_id: b'{"oops')
    for n in range(20):
        record(makers[n % 4](f"t{n % 3}"), now=NOW - (n * 7 % 5) * MINUTE, ref=f"order-{n}")


def pages_of(wanted: DeliveryFilter, limit: int = 3) -> list[deliveries.FoundDeliveries]:
    pages, before = [], None
    for _ in range(100):
        pages.append(list_deliveries(wanted, limit, before))
        before = pages[-1].next
        if before is None:
            return pages
    raise AssertionError("the list has no end")


def expected(wanted: DeliveryFilter) -> list[int]:
    rows = [
        row
        for row in Delivery.select()
        if wanted.verdict in (None, row.verdict)
        and wanted.task in (None, row.task_id)
        and (wanted.since is None or row.received_at >= wanted.since)
        and (wanted.until is None or row.received_at < wanted.until)
    ]
    return [row.id for row in sorted(rows, key=lambda row: (row.received_at, row.id), reverse=True)]


@pytest.mark.usefixtures("twenty")
@pytest.mark.parametrize("most_looked_at", [4, 1000])
@pytest.mark.parametrize("limit", [1, 3, 50])
def test_the_pages_hold_each_delivery_of_a_filter_once_newest_first(monkeypatch, most_looked_at, limit):
    monkeypatch.setattr(deliveries, "MOST_LOOKED_AT", most_looked_at)
    verdicts = (None, "unreadable", "pending", "failed", "succeeded")
    spans = ((None, None), (NOW - 2 * MINUTE, None), (None, NOW - MINUTE), (NOW - 3 * MINUTE, NOW))
    for verdict, task, (since, until) in itertools.product(verdicts, (None, "t1", "nobody"), spans):
        wanted = DeliveryFilter(verdict, task, since, until)
        pages = pages_of(wanted, limit)
        assert [row.id for page in pages for row in page.deliveries] == expected(wanted), wanted
        assert all(len(page.deliveries) <= limit for page in pages)


@pytest.mark.usefixtures("twenty")
def test_a_new_delivery_does_not_shift_the_pages():
    first = list_deliveries(DeliveryFilter(), 5)
    before = list_deliveries(DeliveryFilter(), 5, first.next)
    record(body("new"), now=NOW + MINUTE)
    assert list_deliveries(DeliveryFilter(), 5, first.next) == before


@pytest.mark.usefixtures("ledger")
def test_a_page_ends_by_bytes_and_the_next_goes_on(monkeypatch):
    monkeypatch.setattr(deliveries, "MOST_BYTES", 1000)
    for n in range(5):
        record(body(f"t{n}"), now=NOW + n * MINUTE, ref="r" * 400)
    pages = pages_of(DeliveryFilter(), 50)
    assert [len(page.deliveries) for page in pages] == [2, 2, 1]


@pytest.mark.usefixtures("ledger")
def test_a_list_loads_no_bodies():
    record(body("t1", text="x" * 10_000))
    (row,) = list_deliveries(DeliveryFilter(), 5).deliveries
    assert not {"body", "headers"} & row.__data__.keys()


@pytest.mark.usefixtures("ledger")
def test_what_is_pruned_between_two_statements_does_not_end_a_list(monkeypatch):
    for n in range(6):
        record(body(f"t{n}"), now=NOW + n * MINUTE)
    look = deliveries._look

    def look_and_prune(wanted, limit, before):
        found = look(wanted, limit, before)
        Delivery.delete().where(Delivery.id.in_([row_id for _, row_id in found[0][: limit - 1]])).execute()
        return found

    with monkeypatch.context() as once:
        once.setattr(deliveries, "_look", look_and_prune)
        page = list_deliveries(DeliveryFilter(), 2)
    assert (page.deliveries, page.next is not None) == ([], True)
    rest = list_deliveries(DeliveryFilter(), 50, page.next).deliveries
    assert [row.task_id for row in rest] == ["t3", "t2", "t1", "t0"]


@pytest.mark.usefixtures("twenty")
@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (DeliveryFilter(), "delivery_received_at"),
        (DeliveryFilter(verdict="failed"), "delivery_received_at"),
        (DeliveryFilter(since=NOW - MINUTE, until=NOW), "delivery_received_at"),
        (DeliveryFilter(verdict="unreadable"), "delivery_unreadable"),
        (DeliveryFilter(verdict="unreadable", since=NOW - MINUTE), "delivery_unreadable"),
    ],
)
@pytest.mark.parametrize("before", [None, (NOW, 10)])
def test_each_list_follows_an_index_from_its_newest_delivery_on(wanted, index, before):
    plan = plan_of(newest_places(wanted, before).limit(20))
    assert index in plan, plan
    # Only deliveries of the same moment are sorted, where the index does not hold their numbers.
    assert "USE TEMP B-TREE FOR ORDER BY" not in plan, plan
    assert "Sort" not in plan or "Presorted Key" in plan, plan


@pytest.mark.usefixtures("twenty")
def test_the_list_of_a_task_is_found_by_the_tasks_index():
    assert Task.select().count() == 3
    plan = plan_of(newest_places(DeliveryFilter(task="t1"), None).limit(20))
    if not on_postgresql():  # with twenty rows it would rather walk down the times
        assert "delivery_task_id" in plan, plan
