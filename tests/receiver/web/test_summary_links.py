"""The links in the overview's sentences: each leads to the tasks that its sentence counts, and to no other."""

import html
import re
from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import pauses, store
from receiver.ledger.models import Task
from tests import factories
from tests.html import listed, run_now, words

DAY, HOUR, NONE = timedelta(days=1), timedelta(hours=1), timedelta(0)


def waits(*ids, ago=NONE):
    factories.register(*ids, now=utcnow() - ago)


def is_recovered(*ids, ago=NONE):
    now = utcnow() - ago
    factories.register(*ids, now=now, grace=NONE)
    factories.look_up([factories.finished_item(task_id) for task_id in ids], now=now)


def is_disputed(*ids, ago=NONE):
    now = utcnow() - ago
    for task_id in ids:
        factories.record(factories.body(task_id), now=now, confirm=True)
    factories.look_up([factories.failed_item(task_id) for task_id in ids], now=now)


def is_given_up(*ids, ago=HOUR):
    now = utcnow() - ago
    factories.register(*ids, now=now - DAY, grace=NONE)
    factories.give_up(now=now)


def shown(get):
    """Return for each sentence with links its words, and for each of its links the tasks of that list."""
    told = {}
    for summary in re.findall(r'<(?:h1|div) class="summary [^>]*>(.*?)</(?:h1|div)>', get("/"), re.DOTALL):
        links = re.findall(r'<a href="([^"]*)">([^<]*)</a>', summary)
        text = words(f"<main>{summary}")
        if links:
            told[text] = {name: set(listed(get(html.unescape(url)))) for url, name in links}
    return told


def test_what_was_given_up_of_what_the_app_is_told(get):
    factories.record(factories.body("called-back"))
    run_now()
    dead = factories.create_forward(status="failed")
    factories.create_forward(status="delivered")
    factories.create_endpoint("https://held.example/", held_at=utcnow(), held_because="gone")
    page = get("/")
    assert "https://held.example/ has answered 410 Gone" in words(page)
    assert "1 event was given up" in words(page)
    assert "50 % of the newest 2 of the last 24 h" in words(page)
    assert "1 endpoint" in words(page)
    (url,) = re.findall('<a href="([^"]*)">Show what was given up', page)
    listed = re.findall('class="name" href="/forwards/([^"]*)"', get(html.unescape(url)))
    assert listed == [str(dead.id)]


def test_what_waits_and_what_was_recovered_while_all_is_at_work(get):
    is_recovered("old", ago=3 * DAY)
    is_recovered("r1", "r2")
    waits("w1", "w2", "w3")
    run_now()
    ((text, lists),) = shown(get).items()
    assert "3 tasks are waiting for a result" in text
    assert "2 callbacks never came; all were recovered" in text
    assert lists == {"Show what waits": {"w1", "w2", "w3"}, "Show what was recovered": {"r1", "r2"}}


def test_what_was_recovered_when_all_is_well(get):
    is_recovered("old", ago=3 * DAY)
    is_recovered("r1")
    factories.record(factories.body("called-back"))
    run_now()
    ((text, lists),) = shown(get).items()
    assert "1 callback never came" in text
    assert lists == {"Show what was recovered": {"r1"}}


def test_nothing_where_nothing_is_counted(get):
    factories.record(factories.body("called-back"))
    run_now()
    assert shown(get) == {}


def test_what_was_given_up_in_the_last_day_and_not_before(get):
    is_given_up("old", ago=3 * DAY)
    is_given_up("g1", "g2")
    run_now()
    ((text, lists),) = shown(get).items()
    assert "2 tasks were given up in the last 24 h" in text
    assert lists == {"Show what was given up": {"g1", "g2"}}


def test_what_is_disputed_and_not_acknowledged(get):
    is_disputed("old", ago=3 * DAY)
    is_disputed("d1", "seen")
    store.acknowledge(["seen"], utcnow())
    run_now()
    ((text, lists),) = shown(get).items()
    assert "1 task of the last 24 h is disputed" in text
    assert lists == {"Show what is disputed": {"d1"}}


def test_what_waits_while_the_reconciler_is_away(get):
    factories.record(factories.body("called-back"))
    waits("w1")
    ((text, lists),) = shown(get).items()
    assert "the reconciler has never run" in text
    assert "1 task is waiting for a result." in text
    assert lists == {"Show what waits": {"w1"}}


@pytest.mark.parametrize("account", [True, False])
def test_what_waits_while_upstream_may_not_be_asked(get, account):
    factories.record(factories.body("called-back"))
    waits("w1")
    run_now()
    if account:
        pauses.pause_account("no balance", utcnow())
    else:
        pauses.throttle("upstream answered 429", timedelta(minutes=5), utcnow())
    ((text, lists),) = shown(get).items()
    assert re.search(r"no balance|429", text)
    assert "1 task is waiting for a result. Show what waits" in text
    assert lists == {"Show what waits": {"w1"}}


def test_what_waits_while_look_ups_fail(get):
    factories.record(factories.body("called-back"))
    waits("w1")
    for ago in (300, 200, 20):
        run_now(ago=ago, due=1, calls=1, errors=1, error="HTTP 502")
    ((text, lists),) = shown(get).items()
    assert "look-ups have failed since" in text
    assert lists == {"Show what waits": {"w1"}}


def test_all_that_comes_of_a_token_of_another_account(get, monkeypatch):
    monkeypatch.setattr("receiver.ledger.reading.disputes.knows_none", lambda since: True)
    is_given_up("g0", ago=3 * DAY)
    is_given_up("g1")
    is_disputed("d1")
    waits("w1")
    run_now()
    ((text, lists),) = shown(get).items()
    for counted in ("1 task of the last 24 h is disputed", "1 task was given up", "1 task is waiting"):
        assert counted in text
    assert lists == {
        "Show what is disputed": {"d1"},
        "Show what was given up": {"g1"},
        "Show what waits": {"w1"},
    }
    assert Task.select().count() == 4
