"""The reconciler's runs, and one run with its look-ups."""

import re

from receiver.ledger import runs
from receiver.ledger.clock import utcnow
from receiver.ledger.models import Lookup
from tests import factories
from tests.html import links, run_now, words


def test_it_lists_runs(get):
    run_now(ago=60, due=7, asked=6, settled=5, running=4, absent=3, calls=2, errors=1, error="HTTP 500")
    runs.open_run("test:2", utcnow())
    page = words(get("/runs"))
    assert re.search(r"1\.0 s 7 6 5 4 3 2 1 HTTP 500 test:1", page)
    assert "unfinished" in page
    assert page.index("test:2") < page.index("test:1")


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
    assert "No run that is kept has asked upstream" in words(get("/runs?asked=true"))
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
