"""Lists of forwards: what they hold, in which order, and how the database finds it."""

import itertools
from collections.abc import Sequence
from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import choosing
from receiver.ledger.models import Attempt, Endpoint, Forward, database
from receiver.ledger.reading import forwards
from receiver.ledger.reading.forwards import Cause, ForwardFilter, list_forwards
from tests.factories import create_endpoint, create_forward
from tests.receiver.ledger.reading.test_listing import plan_of

NOW = utcnow().replace(microsecond=0)
MINUTE = timedelta(minutes=1)
TYPES = ("task.succeeded", "task.failed")
STORED = ("pending", "delivered", "failed", "resent", "dismissed")


@pytest.fixture
def forty(ledger):
    """Forty forwards of all kinds; several were made at one moment, and not in the order of their numbers."""
    open_ = create_endpoint("https://a.example/")
    held = create_endpoint("https://b.example/", held_at=NOW, held_because="person")
    retired = create_endpoint("https://c.example/", retired_at=NOW)
    with database.atomic():
        for n in range(40):
            status = STORED[n % 5]
            create_forward(
                endpoint=(open_, held, retired)[n % 3],
                type=TYPES[n % 2],
                task_id=f"t{n % 4}",
                status=status,
                created_at=NOW - (n * 7 % 5) * MINUTE,
                cause=f"HTTP {500 + n % 2}" if status == "failed" else None,
            )


def pages_of(wanted: ForwardFilter, limit: int = 3) -> list[forwards.FoundForwards]:
    pages, before = [], None
    for _ in range(100):
        pages.append(list_forwards(wanted, limit, before))
        before = pages[-1].next
        if before is None:
            return pages
    raise AssertionError("the list has no end")


def all_forwards() -> list[Forward]:
    """Return all of them, newest first, with their endpoints."""
    rows = Forward.select(Forward, Endpoint).join(Endpoint)
    return list(rows.order_by(Forward.created_at.desc(), Forward.id.desc()))


def expected(wanted: ForwardFilter, rows: Sequence[Forward]) -> list[int]:
    return [
        row.id
        for row in rows
        if wanted.status in (None, row.state)
        and wanted.endpoint in (None, row.endpoint.id)
        and wanted.type in (None, row.type)
        and wanted.task in (None, row.task_id)
        and wanted.cause in (None, row.cause)
        and (wanted.since is None or row.created_at >= wanted.since)
        and (wanted.until is None or row.created_at < wanted.until)
    ]


def some_filters() -> list[ForwardFilter]:
    spans = ((None, None), (NOW - 2 * MINUTE, None), (NOW - 3 * MINUTE, NOW))
    others = ({}, {"endpoint": 2}, {"type": "task.failed"}, {"task": "t1"}, {"cause": "HTTP 500"})
    return [
        ForwardFilter(status=status, since=since, until=until, **other)
        for status, other, (since, until) in itertools.product((None, *forwards.STATES), others, spans)
    ]


@pytest.mark.usefixtures("forty")
@pytest.mark.parametrize(("most_looked_at", "limit"), [(4, 1), (4, 3), (1000, 3), (1000, 50)])
def test_the_pages_hold_each_forward_of_a_filter_once_newest_first(monkeypatch, most_looked_at, limit):
    monkeypatch.setattr(choosing, "MOST_LOOKED_AT", most_looked_at)
    rows = all_forwards()
    assert {row.state for row in rows} == set(forwards.STATES)
    for wanted in some_filters():
        pages = pages_of(wanted, limit)
        assert [row.id for page in pages for row in page.forwards] == expected(wanted, rows), wanted
        assert all(len(page.forwards) <= limit for page in pages)


@pytest.mark.usefixtures("forty")
@pytest.mark.parametrize(("most_looked_at", "limit"), [(4, 3), (1000, 7)])
def test_a_walk_finds_the_same_oldest_first(monkeypatch, most_looked_at, limit):
    monkeypatch.setattr(choosing, "MOST_LOOKED_AT", most_looked_at)
    rows = all_forwards()
    for wanted in some_filters():
        found, after = choosing.find_next(wanted, limit, None)
        while after is not None:
            some, after = choosing.find_next(wanted, limit, after)
            found += some
        assert found == expected(wanted, rows)[::-1], wanted


@pytest.mark.usefixtures("forty")
def test_a_list_loads_endpoints_and_no_bodies():
    for row in list_forwards(ForwardFilter(), 50).forwards:
        assert "body" not in row.__data__
        assert row.__rel__["endpoint"].url.endswith(".example/")


@pytest.mark.usefixtures("forty")
@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (ForwardFilter(), "forward_status_newest"),
        (ForwardFilter(status="delivered", since=NOW - MINUTE), "forward_status_newest"),
        (ForwardFilter(status="held"), "forward_status_newest"),
        (ForwardFilter(status="resent"), "forward_status_newest"),
        (ForwardFilter(endpoint=1, type="task.failed"), "forward_status_newest"),
        (ForwardFilter(status="failed"), "forward_status_newest"),
        (ForwardFilter(status="failed", cause="HTTP 500"), "forward_status_newest"),
    ],
)
@pytest.mark.parametrize("beyond", [None, (NOW, 10)])
@pytest.mark.parametrize("newest_first", [True, False])
def test_each_look_follows_an_index_from_its_place_on(wanted, index, beyond, newest_first):
    for start in choosing._starts(wanted):
        given = choosing._given(start, wanted, beyond)
        plan = plan_of(choosing._build(newest_first, limit=20, **given))
        assert index in plan, plan
        assert "TEMP B-TREE" not in plan, plan
        assert "Sort" not in plan, plan


@pytest.mark.usefixtures("ledger")
def test_dead_letters_are_grouped_by_cause(monkeypatch):
    for minutes, cause in enumerate(["HTTP 500", "no answer in time", "HTTP 500"]):
        create_forward(status="failed", cause=cause, created_at=NOW + minutes * MINUTE)
    create_forward(status="resent", cause="HTTP 500")
    create_forward(status="dismissed", cause="HTTP 500")
    create_forward(status="pending", cause="HTTP 500")
    assert forwards.causes() == [
        Cause("HTTP 500", 2, NOW, NOW + 2 * MINUTE),
        Cause("no answer in time", 1, NOW + MINUTE, NOW + MINUTE),
    ]
    monkeypatch.setattr(forwards, "MOST_COUNTED", 1)
    assert forwards.causes() == [Cause("HTTP 500", 1, NOW + 2 * MINUTE, NOW + 2 * MINUTE)]


@pytest.mark.usefixtures("ledger")
def test_a_forward_comes_with_its_attempts_and_what_sends_it_again():
    first = create_forward(status="delivered")
    again = [create_forward(status="delivered", resends=first.id) for _ in range(2)]
    create_forward()
    for number in range(3):
        Attempt.create(
            forward=again[0], began_at=NOW, took=number, url="", headers="{}", kind="refused", answer=b""
        )
    found = forwards.find_forward(again[0].id)
    assert found is not None
    assert found.body
    assert [attempt.took for attempt in forwards.attempts_of(found.id)] == [2, 1, 0]
    for one in (first, *again):
        assert [row.id for row in forwards.resendings_of(one)] == [again[1].id, again[0].id]
    assert forwards.find_forward(10**9) is None


@pytest.mark.usefixtures("forty")
def test_a_tasks_forwards_are_listed_newest_first():
    ids = [row.id for row in Forward.select().where(Forward.task_id == "t1").order_by(Forward.id.desc())]
    assert [row.id for row in forwards.forwards_of("t1")] == ids
    assert [row.id for row in forwards.forwards_of("t1", limit=2)] == ids[:2]


@pytest.mark.usefixtures("forty")
def test_a_count_is_that_of_the_list(monkeypatch):
    rows = all_forwards()
    for wanted in some_filters():
        assert forwards.count_forwards(wanted) == len(expected(wanted, rows)), wanted
    monkeypatch.setattr(choosing, "MOST_TO_COUNT", 7)
    assert forwards.count_forwards(ForwardFilter(endpoint=1)) is None
    assert forwards.count_forwards(ForwardFilter(status="dismissed")) is None
    assert forwards.count_forwards(ForwardFilter(task="t99")) == 0
