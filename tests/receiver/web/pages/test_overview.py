"""The overview, as a browser asks for it."""

import html
import json
import re
from datetime import timedelta

import pytest

from receiver.clock import to_unix, utcnow
from receiver.ledger import runs, store
from receiver.ledger.evidence import ABSENT, Answer
from receiver.ledger.pace import Pace, TaskKind
from receiver.ledger.patience import Patience
from receiver.ledger.timetable import Timetable
from receiver.web.current import paces_of
from tests import factories
from tests.conftest import CALLBACK_TOKEN
from tests.html import links, listed, run_now, words

HOUR = timedelta(hours=1)


def test_an_empty_ledger_shows_how_to_begin(get):
    page = words(get("/"))
    assert "Almost ready: nothing has arrived yet, and the reconciler has never run." in page
    assert "curl -X POST http://localhost/api/tasks" in page
    assert "http://localhost/callbacks/$CALLBACK_TOKEN/order-1" in page
    assert "http://localhost/callbacks/••••••••" in page


def test_what_an_empty_ledger_suggests_works(client, auth, get):
    page = html.unescape(get("/"))
    registration, callback = re.findall(r"-d '(.*?)'", page)
    assert client.post("/api/tasks", json=json.loads(registration), headers=auth).status_code == 201
    answer = client.post(f"/callbacks/{CALLBACK_TOKEN}/order-1", data=callback)
    assert answer.json == {"received": True, "task_id": "my-first-task", "status": "failed"}
    (path,) = re.findall(r"curl http://localhost(/\S+)", page)
    assert client.get(path, headers=auth).json["status"] == "failed"
    assert "my-first-task" in get("/")


def test_what_an_empty_ledger_suggests_leaves_nothing_behind(client, auth, get):
    registration, callback = re.findall(r"-d '(.*?)'", html.unescape(get("/")))
    client.post("/api/tasks", json=json.loads(registration), headers=auth)
    client.post(f"/callbacks/{CALLBACK_TOKEN}/order-1", data=callback)
    for hours in (0, 1, 5, 23, 25, 26, 27):
        factories.look_up(now=utcnow() + timedelta(hours=hours))
        run_now()
        assert "All is well: the one task of the last 24 h is settled." in words(get("/"))
    task = client.get("/api/tasks/my-first-task", headers=auth).json
    assert (task["status"], task["confirmed"], task["disputed"]) == ("failed", None, False)
    assert task["next_lookup_at"] is None  # nobody asks for ever


def test_the_callback_url_is_the_public_one(make_client, auth):
    page = make_client(PUBLIC_URL="https://hooks.example.com/").get("/", headers=auth).text
    assert "https://hooks.example.com/callbacks/••••••••" in words(page)


def test_it_says_when_all_is_well(get):
    for n in range(3):
        factories.record(factories.body(f"t{n}"))
    run_now()
    page = words(get("/"))
    assert "All is well: all 3 tasks of the last 24 h are settled. No callback was lost." in page


def test_it_says_which_callbacks_never_came_and_how_slow_the_slowest_recovery_was(get):
    now = utcnow()
    for task_id, seconds in (("t1", 20), ("t2", 252)):
        factories.register(task_id, now=now - timedelta(seconds=seconds), grace=timedelta(0), ref="order-7")
    factories.look_up([factories.finished_item("t1"), factories.finished_item("t2")], now=now)
    factories.record(factories.body("t3"), now=now)
    run_now()
    page = get("/")
    assert "2 callbacks never came; all were recovered, the slowest after 4 min 12 s." in words(page)
    assert "never came, recovered22" in words(page).replace(" 2", "2")
    assert "of all results67 %67 %" in words(page).replace(" 67", "67")
    (this_week,) = {url for url in links(page) if "missed=true" in url} - {
        next(url for url in links(page) if "missed=true" in url)
    }
    assert set(listed(get(this_week))) == {"t1", "t2"}


def test_it_plots_how_late_recovered_results_were(get):
    factories.record(factories.body("t0"))
    assert "No result has been recovered yet" in words(get("/"))
    now = utcnow().replace(microsecond=0)
    for task_id, late in (("t1", 9), ("t2", 12), ("t3", 41)):
        factories.register(task_id, now=now - HOUR, grace=timedelta(0))
        finished = factories.finished_item(task_id) | {"finished_at": to_unix(now) - late}
        factories.look_up([finished], now=now)
    page = words(get("/"))
    assert "Half were known within 12 s after upstream had finished the task, all within 41 s." in page
    assert "under 10 s 1" in page
    assert "under 1 min 1" in page


def test_it_plots_how_long_each_kind_takes(client, get):
    factories.record(factories.body("t0"))
    assert "Until then a task without a result is asked about 30 s after its submission." in words(get("/"))
    kind = TaskKind("midjourney", "imagine", "fast")
    pace = Pace().with_results([100] * 20 + [400] * 10)
    paces_of(client.application).timetable = Timetable(timedelta(seconds=30), {kind: pace})
    assert re.search(r"fast imagine 1 min \d+ s [67] min", words(get("/")))


def test_it_says_how_many_tasks_wait(get):
    factories.register(*(f"t{n}" for n in range(12)), now=utcnow() - timedelta(seconds=90))
    factories.record(factories.body("t99"))
    run_now()
    page = words(get("/"))
    assert (
        "At work: 12 tasks are waiting for a result, the oldest for 1 min; 1 of the last 24 h is settled."
        in page
    )


def test_it_says_when_the_reconciler_never_ran(get):
    factories.register("t1")
    page = words(get("/"))
    assert "Trouble: callbacks are received, but the reconciler has never run" in page
    assert "python -m reconcile" in page


def test_it_says_when_the_reconciler_is_silent(get):
    factories.record(factories.body("t1"))
    run_now(ago=7200)
    page = words(get("/"))
    assert re.search(r"Trouble: the reconciler has not run since .* UTC \((1 h 59 min|2 h) ago\)", page)
    assert "Overdue: the reconciler has been silent since" in page


def test_it_says_since_when_look_ups_fail_and_not_of_a_single_one(get):
    factories.register("t1")
    run_now(ago=600, due=1, calls=1)
    run_now(ago=300, due=1, calls=1, errors=1, error="HTTP 500")
    run_now(ago=5)
    page = words(get("/"))
    assert "Trouble" not in page
    assert "HTTP 500" in page  # of the last run that asked
    run_now(ago=60, due=1, calls=1, errors=1, error="HTTP 500")
    run_now(ago=30, due=1, calls=1, errors=1, error="HTTP 502: bad gateway")
    page = words(get("/"))
    assert re.search(
        r"Trouble: look-ups have failed since .* UTC \(5 min ago\), the last with “HTTP 502", page
    )
    assert "1 task is waiting for a result." in page
    run_now(ago=4, due=1, calls=1)
    assert "Trouble" not in words(get("/"))


def test_it_says_when_tasks_were_given_up(get):
    now = utcnow()
    factories.register("t1", now=now - timedelta(days=2), grace=timedelta(0))
    factories.give_up(now=now - timedelta(hours=1))
    page = get("/")
    assert "Attention: 1 task was given up in the last 24 h: upstream gave no final answer." in words(page)
    assert "/tasks?status=expired" in links(page)


def test_it_says_when_a_task_is_disputed_and_what_else_is_wrong(get):
    factories.record(factories.body("t1"), confirm=True)
    factories.look_up([factories.failed_item("t1")])
    run_now(ago=7200)
    page = get("/")
    assert "Attention: 1 task of the last 24 h is disputed: the Tasks API contradicts a callback" in words(
        page
    )
    assert any(url.startswith("/tasks?disputed=true&acknowledged=false&since=") for url in links(page))


class TestTokenOfAnotherAccount:
    def unknown(self, count):
        now = utcnow() - timedelta(minutes=5)
        for n in range(count):
            factories.record(factories.body(f"t{n:02}"), now=now, confirm=True)
        run_id = runs.open_run("test:1", utcnow())
        claimed = factories.claim()
        store.apply(
            claimed,
            {task_id: Answer(error=ABSENT) for task_id in claimed.ids},
            run_id,
            utcnow(),
            utcnow(),
            Patience(lambda *_: HOUR, 24 * HOUR, timedelta(minutes=3)),
        )
        runs.close_run(run_id, utcnow(), {"calls": 1, "asked": count, "absent": count})

    def test_it_is_the_likeliest_cause_where_upstream_knows_no_task(self, get):
        self.unknown(10)
        page = get("/")
        assert "Most likely ACEDATACLOUD_API_TOKEN belongs to another account" in words(page)
        assert "10 tasks of the last 24 h are disputed." in words(page)
        assert page.count('class="summary') == 2  # the other one is hidden: for an answer that fails to come
        assert "Most likely ACEDATACLOUD_API_TOKEN belongs to another account" in words(get("/tasks/t00"))

    def test_where_upstream_confirms_others_forgery_is_likelier(self, get):
        self.unknown(10)
        run_now(calls=1, asked=3, absent=2)
        assert "10 tasks of the last 24 h are disputed: the Tasks API" in words(get("/"))
        assert "another account" not in words(get("/"))
        assert "another account" not in words(get("/tasks/t00"))

    def test_a_few_unknown_tasks_do_not_tell(self, get):
        self.unknown(9)
        for _ in range(3):  # asked about again and again
            run_now(calls=1, asked=9, absent=9)
        assert "9 tasks of the last 24 h are disputed" in words(get("/"))
        assert "another account" not in words(get("/"))


def test_it_says_when_deliveries_wait_in_the_spool(get, make_settings):
    spool = make_settings().spool_dir
    spool.mkdir()
    (spool / "deliveries").write_text("{}\n{}\n")
    run_now()
    assert "2 deliveries in the spool are not in the database yet." in words(get("/"))


def test_it_lists_deliveries_that_named_no_task(get):
    factories.record(b'{"oops', ref="order-9")
    factories.record(b"", now=utcnow() - timedelta(days=2))
    page = words(get("/"))
    assert "Deliveries that named no task" in page
    assert "The body is not JSON (line 1). 6 bytes ref order-9" in page
    assert "The body is empty." not in page


def test_it_shows_the_newest_ten_of_a_thousand_tasks(get):
    now = utcnow()
    for hundred in range(10):
        ids = [f"t{hundred * 100 + n:04}" for n in range(100)]
        factories.register(*ids, now=now - timedelta(minutes=10 - hundred))
    page = get("/")
    assert listed(page) == [f"t{n:04}" for n in range(999, 989, -1)]
    assert "1,000" in words(page)


def test_it_plots_what_became_of_the_tasks_by_the_hour_and_by_the_quarter_of_a_day(get):
    now = utcnow()
    factories.record(factories.body("t1"), now=now)
    factories.record(factories.failure_body("t2"), now=now)
    factories.register("t3", now=now - 3 * HOUR)
    factories.record(factories.body("t4"), now=now - timedelta(days=3))
    factories.record(factories.body("t5"), now=now - timedelta(days=9))
    day, week = get("/"), get("/?span=7d")
    titles = [html.unescape(title) for title in re.findall(r"<title>([^<]*task|[^<]*\d [^<]*)</title>", day)]
    assert [title.partition("UTC: ")[2] for title in titles if "no task" not in title and "UTC" in title] == [
        "1 open",
        "1 by callback, 1 failed",
    ]
    assert len(re.findall('class="slot"', day)) == 25
    assert len(re.findall('class="slot"', week)) == 29
    assert "4 tasks, by the time" in week
    assert "span must be one of 24h, 7d." in words(get("/?span=1y", 400))


def test_it_tells_how_long_results_took_by_how_they_came(get):
    now = utcnow()
    for task_id, seconds in (("t1", 20), ("t2", 25), ("t3", 400)):
        factories.register(task_id, now=now - timedelta(seconds=seconds), grace=timedelta(0))
    factories.record(factories.body("t1"), now=now)
    factories.record(factories.body("t2"), now=now)
    factories.look_up([factories.finished_item("t3")], now=now)
    page = words(get("/"))
    assert re.search(
        r"under 30 s 2 0 under 1 min 0 0 under 2 min 0 0 under 3 min 0 0 under 5 min 0 0 under 10 min 0 1",
        page,
    )


@pytest.mark.parametrize(
    "task_id", ["<b>'\"&", "a/b//c", "with?and#and%2F", "ünï cödé", "../up", "a/../b", "%"]
)
def test_tasks_of_any_id_can_be_reached(get, task_id):
    factories.record(factories.body(task_id))
    for path in ("/", "/tasks"):
        (url,) = re.findall(r'<a class="name" href="([^"]*)"', get(path))
        assert f"Id{task_id}" in words(get(html.unescape(url))).replace("Id ", "Id")
