"""The reconciler's runs, and one run with its look-ups."""

import re
from datetime import timedelta

from receiver.clock import utcnow
from receiver.ledger import runs
from receiver.ledger.models import Lookup
from receiver.web.pages import runs as run_pages
from tests import factories
from tests.html import links, run_now, words


def test_it_lists_runs(get):
    run_now(
        ago=60,
        due=40,
        asked=30,
        settled=9,
        confirmed=8,
        running=7,
        absent=4,
        calls=3,
        errors=1,
        error="HTTP 500",
    )
    runs.open_run("test:2", utcnow() - timedelta(minutes=5))
    page = words(get("/runs"))
    # The last of those that add up to 30 are the tasks whose call failed.
    assert re.search(r"by test:1 1\.0 s 40 30 9 8 7 4 2 3 1 HTTP 500", page)
    assert "settled + confirmed + running + absent + unanswered" in page
    assert "unfinished" in page
    assert "in progress" not in page
    assert page.index("test:2") < page.index("test:1")


def test_a_run_in_progress_says_how_far_it_is_and_what_is_left(get):
    factories.register("a", "b", "c", now=utcnow() - factories.DAY)
    run_id = runs.open_run("test:1", utcnow() - timedelta(minutes=10))
    runs.note_progress(
        run_id, utcnow(), {"due": 150, "asked": 100, "settled": 90, "confirmed": 10, "calls": 2}
    )
    told = (
        f"Run {run_id} is in progress. So far it has asked about 100 tasks. It is asking about 50 more."
        " 3 tasks are still due."
    )
    for path in ("/runs", f"/runs/{run_id}"):
        page = get(path)
        assert told in words(page)
        assert f'hx-get="{path}"' in page
    runs.close_run(run_id, utcnow(), {"due": 150, "asked": 100})
    for path in ("/runs", f"/runs/{run_id}"):
        assert "in progress" not in words(get(path))
    assert "It did not ask about 50 tasks and released them" in words(get(f"/runs/{run_id}"))


def test_of_many_tasks_that_are_due_some_are_counted(get, monkeypatch):
    monkeypatch.setattr(run_pages, "_MOST_DUE", 5)
    factories.register(*(f"t{n}" for n in range(9)), now=utcnow() - factories.DAY)
    runs.open_run("test:1", utcnow())
    assert "5 or more are still due." in words(get("/runs"))


def test_it_pages_through_all_runs(get):
    ids = [run_now() for _ in range(60)]
    page = get("/runs")
    (older,) = [url for url in links(page) if "before=" in url]
    shown = [int(n) for n in re.findall(r'href="/runs/(\d+)"', page + get(older))]
    assert shown == ids[::-1]
    assert "before=" not in " ".join(links(get(older)))


def test_it_shows_those_that_asked_upstream_alone(get):
    asking = [run_now(calls=1) for _ in range(60)]
    for _ in range(60):
        run_now()
    page = get("/runs?asked=true")
    (older,) = [url for url in links(page) if "before=" in url]
    assert [int(n) for n in re.findall(r'href="/runs/(\d+)"', page + get(older))] == asking[::-1]
    assert "/runs?asked=true" in links(get(older))
    assert "asked must be true" in words(get("/runs?asked=x", 400))


def test_it_says_that_there_was_no_run(get):
    assert "No stored run has asked upstream" in words(get("/runs?asked=true"))
    assert "The reconciler has never run." in words(get("/runs"))


def test_a_run_shows_its_look_ups(get):
    factories.register("t1", "t2", now=utcnow() - factories.DAY)
    factories.look_up([factories.finished_item("t1", request={"prompt": "a lighthouse"})])
    run_id = Lookup.get().run_id
    page = get(f"/runs/{run_id}")
    assert re.search("a lighthouse.*succeeded", words(page))
    assert re.search("t2.*absent", words(page))
    assert "/tasks/t2" in links(page)


def test_a_run_without_look_ups_says_so(get):
    assert "It asked about no task." in words(get(f"/runs/{run_now()}"))


def test_it_pages_through_a_runs_look_ups(get):
    factories.register(*(f"t{n:03}" for n in range(150)), now=utcnow() - factories.DAY)
    run_id, now = run_now(asked=150), utcnow()
    told = {"run": run_id, "verdict": "absent", "asked_at": now, "answered_at": now}
    Lookup.insert_many({"task": f"t{n:03}"} | told for n in range(150)).execute()
    page = get(f"/runs/{run_id}")
    (more,) = [url for url in links(page) if "before=" in url]
    shown = re.findall(r'href="/tasks/(t\d+)"', page + get(more))
    assert sorted(shown) == [f"t{n:03}" for n in range(150)]


def test_a_number_that_is_none_is_refused(get):
    for path in ("/runs?before=x", "/runs?before=-1", f"/runs?before={10**30}", f"/runs?before={'9' * 5000}"):
        assert "before must be a number" in words(get(path, 400))
    assert "No such run" in words(get(f"/runs/{10**30}", 404))
