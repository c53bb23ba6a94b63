"""The pages, as a browser asks for them."""

import html
import json
import re
from datetime import timedelta
from urllib.parse import quote

import pytest

from receiver.ledger import runs
from receiver.ledger.clock import utcnow
from receiver.ledger.models import Task, database
from receiver.ledger.results import STATUSES
from tests import factories
from tests.conftest import API_KEY, CALLBACK_TOKEN

SCRIPT = "<script>alert('x')</script>\"'&"
PAGES = ("/", "/runs", "/tasks/t1")


@pytest.fixture
def get(client, auth):
    """Asks for a page, of which it returns the HTML."""

    def ask(path, status=200):
        response = client.get(path, headers=auth)
        assert response.status_code == status, response.text
        assert response.mimetype == "text/html"
        return response.text

    return ask


def words(page):
    """Return a page's text as a reader sees it."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", page.partition("<main")[2])))


def links(page):
    return [html.unescape(url) for url in re.findall(r'(?:href|src|action)="([^"]*)"', page)]


def run_now(ago=5, **counts):
    started_at = utcnow() - timedelta(seconds=ago)
    runs.close_run(runs.open_run("test:1", started_at), started_at + timedelta(seconds=1), counts)


@pytest.mark.parametrize("path", PAGES)
def test_pages_need_the_api_key(client, path):
    response = client.get(path)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert "password" in words(response.text)


def test_a_browser_signs_in_with_any_user_name(client):
    assert client.get("/", auth=("anybody", API_KEY)).status_code == 200
    assert client.get("/", auth=("anybody", "wrong")).status_code == 401


@pytest.mark.parametrize("path", ["/", "/runs", "/tasks/unknown", "/nowhere"])
def test_pages_may_load_and_do_nothing_beyond_themselves(client, auth, path):
    headers = client.get(path, headers=auth).headers
    assert headers["Content-Security-Policy"] == (
        "default-src 'none'; style-src 'self'; img-src 'self' https: http:; form-action 'self';"
        " base-uri 'none'; frame-ancestors 'none'"
    )
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", [*PAGES, "/?status=pending", "/?q=t1", "/nowhere"])
def test_pages_bring_no_script_no_inline_style_and_nothing_from_elsewhere(client, auth, path):
    factories.record(factories.body("t1", image_url=None, progress=40))
    page = client.get(path, headers=auth).text
    assert "<script" not in page
    assert not re.search(r"\sstyle=|\son[a-z]+=|<style", page)
    assert all(url.startswith(("/", "#")) for url in links(page))


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
    assert answer.json == {"received": True, "task_id": "my-first-task", "status": "succeeded"}
    assert "my-first-task" in get("/")


def test_the_callback_url_is_the_public_one(make_client, auth):
    page = make_client(PUBLIC_URL="https://hooks.example.com/").get("/", headers=auth).text
    assert "https://hooks.example.com/callbacks/••••••••" in words(page)


def test_it_says_when_all_is_well(get):
    factories.record(factories.body("t1"))
    run_now()
    page = words(get("/"))
    assert "All is well: every task heard of in the last 24 h is settled." in page
    assert "None today, none in the last 24 h." in page


def test_it_says_which_callbacks_never_came(get):
    now = utcnow()
    factories.register("t1", now=now - timedelta(seconds=20), grace=timedelta(0), ref="order-7")
    factories.look_up([factories.finished_item("t1", request={"prompt": "a lighthouse"})], now=now)
    page = words(get("/"))
    assert (
        "All is well: every task heard of in the last 24 h is settled. 1 callback never came; it was" in page
    )
    assert re.search(r"1 of those of the last 24 h\. Each was recovered .* a lighthouse", page)
    assert "ref order-7" in page


def test_it_says_how_many_tasks_wait(get):
    factories.register(*(f"t{n}" for n in range(12)))
    run_now()
    page = words(get("/"))
    assert "At work: 12 tasks are waiting for a result; the oldest was heard of just now." in page


def test_it_says_when_the_reconciler_never_ran(get):
    factories.register("t1")
    page = words(get("/"))
    assert "Trouble: callbacks are taken in, but the reconciler has never run" in page
    assert "python -m reconcile" in page


def test_it_says_when_the_reconciler_is_silent(get):
    factories.record(factories.body("t1"))
    run_now(ago=7200)
    page = words(get("/"))
    assert re.search(r"Trouble: the reconciler has not run since .* UTC \((1 h 59 min|2 h) ago\)", page)
    assert "Overdue: the reconciler has been silent since" in page


def test_it_says_when_the_last_run_failed(get):
    factories.register("t1")
    run_now(ago=30, due=1, calls=1, errors=1, error="401 invalid_token: The API token is not valid.")
    run_now(ago=5)
    page = words(get("/"))
    assert "Trouble: the last run that asked upstream failed 30 s ago: “401 invalid_token" in page
    assert "1 task is waiting for a result." in page
    assert "Nothing was due." in page


def test_it_says_when_tasks_were_given_up(get):
    now = utcnow()
    factories.register("t1", now=now - timedelta(days=2), grace=timedelta(0))
    factories.look_up(now=now)
    page = words(get("/"))
    assert "Attention: 1 task was given up in the last 24 h: upstream gave no final answer." in page


def test_a_disputed_task_shows_both_versions_side_by_side(get):
    factories.record(factories.failure_body("t1", "forged"), confirm=True)
    factories.look_up([factories.finished_item("t1")])
    page = words(get("/tasks/t1"))
    assert "The callback says failed" in page
    assert "Upstream says succeeded" in page
    factories.record(factories.body("t2"))
    assert "Two versions" not in words(get("/tasks/t2"))


def test_it_says_when_a_task_is_disputed(get):
    factories.record(factories.body("t1"), confirm=True)
    factories.look_up([factories.failed_item("t1")])
    assert "1 task is disputed: the Tasks API contradicts a callback" in words(get("/"))
    page = words(get("/tasks/t1"))
    assert "Disputed: a callback says succeeded, the Tasks API says failed." in page
    assert "bad_request: no" in page


def test_it_lists_deliveries_that_named_no_task(get):
    factories.record(b'{"oops', ref="order-9")
    factories.record(b"", now=utcnow() - timedelta(days=2))
    page = words(get("/"))
    assert "Deliveries that named no task" in page
    assert "The body is not JSON (line 1). 6 bytes ref order-9" in page
    assert "The body is empty." not in page


def test_it_shows_the_newest_fifty_of_a_thousand_tasks(get):
    now = utcnow()
    for hundred in range(10):
        ids = [f"t{hundred * 100 + n:04}" for n in range(100)]
        factories.register(*ids, now=now - timedelta(minutes=10 - hundred))
    page = get("/")
    shown = re.findall(r'<a class="name" href="/tasks/(t\d+)"', page)
    assert shown == [f"t{n:04}" for n in range(999, 949, -1)]
    assert "1,000" in words(page)


@pytest.mark.parametrize("status", STATUSES)
def test_it_lists_the_tasks_of_a_status(get, status):
    now = utcnow()
    factories.register("expired", now=now - timedelta(days=2), grace=timedelta(0))
    factories.look_up(now=now)
    factories.register("pending")
    factories.record(factories.body("succeeded"))
    factories.record(factories.failure_body("failed"))
    shown = re.findall(r'<a class="name" href="/tasks/(\w+)"', get(f"/?status={status}"))
    assert shown == [status]


def test_it_finds_tasks(get):
    factories.register("t1", ref="order-1")
    factories.register("t2", ref="order-2")
    page = get("/?q=order-2")
    assert "/tasks/t2" in page
    assert "/tasks/t1" not in page
    assert "There is none." in get("/?q=nobody")


@pytest.mark.parametrize("query", ["status=broken", "q=%00"])
def test_a_bad_question_is_a_400(get, query):
    assert "Bad Request" in get(f"/?{query}", 400)


def test_it_shows_all_of_a_task(get):
    now = utcnow()
    factories.register(
        "t1", now=now - timedelta(minutes=5), ref="order-1", type="imagine", trace_id="trace-1"
    )
    image = "https://x/1.png?a=1&b=2"
    factories.record(factories.body("t1", image_url=image), confirm=True, remote_addr="203.0.113.7")
    factories.record(factories.body("t1", image_url=image), remote_addr="203.0.113.7")
    factories.look_up([factories.finished_item("t1", request={"prompt": "a lighthouse"})])
    page = get("/tasks/t1")
    for text in ("a lighthouse", "order-1", "imagine", "trace-1", "203.0.113.7", "same as an earlier one"):
        assert text in words(page)
    assert "Confirmed: callback and Tasks API both say succeeded." in words(page)
    assert "None: upstream has given its final answer." in words(page)
    assert "settled as succeeded by a callback" in words(page)
    assert '"prompt": "a lighthouse"' in words(page)
    assert 'loading="lazy" referrerpolicy="no-referrer"' in page


def test_a_task_that_is_not_there_is_a_404_page(get):
    for path in ("/tasks/unknown", "/tasks/with/slashes//and?x=1", "/tasks/a%00b", f"/tasks/{quote(SCRIPT)}"):
        page = words(get(path, 404))
        assert "No such task" in page
        assert "What to do" in page


@pytest.mark.parametrize("task_id", [SCRIPT, "a/b//c", "with?and#and%2F", "ünï cödé", "../up", "a/../b", "%"])
def test_tasks_of_any_id_can_be_reached_from_the_overview(get, task_id):
    factories.record(factories.body(task_id))
    (url,) = re.findall(r'<a class="name" href="([^"]*)"', get("/"))
    assert f'<dd class="mono">{html.escape(task_id, quote=True)}' in get(html.unescape(url)).replace(
        "&#34;", "&quot;"
    ).replace("&#39;", "&#x27;")


def test_hostile_texts_stay_texts(get):
    fields = {"trace_id": SCRIPT, "image_url": "javascript:alert(1)", "video_url": f"https://x/{SCRIPT}"}
    factories.record(factories.body(SCRIPT, **fields, descriptions=[SCRIPT]), confirm=True, ref=SCRIPT)
    factories.record(factories.failure_body("t2", SCRIPT, SCRIPT), ref=SCRIPT, remote_addr=SCRIPT)
    factories.record(b"{", ref=SCRIPT)
    factories.look_up([factories.item(SCRIPT, type=SCRIPT, request={"prompt": SCRIPT})], error=SCRIPT)
    run_now(calls=1, errors=1, error=SCRIPT)
    for path in ("/", "/runs", f"/tasks/{quote(SCRIPT, safe='')}", "/tasks/t2", f"/?q={quote(SCRIPT)}"):
        page = get(path)
        assert "<script" not in page
        assert html.unescape(page).count(SCRIPT), path
        assert not [url for url in links(page) if url.lower().startswith("javascript")]


def test_texts_that_cannot_be_encoded_do_not_break_a_page(get):
    body = b'{"task_id": "t1", "success": false, "error": {"code": "\\ud800", "message": "a\\u0000b"}}'
    factories.record(body)
    assert "\\ud800" in words(get("/tasks/t1"))
    get("/")


def test_the_token_is_on_no_page(get):
    url = f"https://hooks.example.com/callbacks/{CALLBACK_TOKEN}/order-1"
    factories.record(factories.body("t1", note=url, descriptions=[url]), confirm=True, ref=url)
    factories.look_up([factories.item("t1", request={"prompt": url, "callback_url": url})])
    factories.record(factories.failure_body("t2", url, url), ref=url, confirm=True)
    factories.look_up(error=url)
    factories.record(b"[]", ref=url)
    run_now(calls=1, errors=1, error=url)
    with database.connection_context():  # as if it had been stored unmasked
        Task.update(prompt=url, type=url).where(Task.id == "t1").execute()
    for path in ("/", "/runs", "/tasks/t1", "/tasks/t2", "/?disputed", "/nowhere"):
        page = get(path, 404 if path == "/nowhere" else 200)
        assert CALLBACK_TOKEN not in page, path
    assert "/callbacks/***/order-1" in get("/tasks/t1")


def test_it_lists_runs(get):
    run_now(ago=60, due=7, asked=6, settled=5, running=4, absent=3, calls=2, errors=1, error="HTTP 500")
    runs.open_run("test:2", utcnow())
    page = words(get("/runs"))
    assert re.search(r"1\.0 s 7 6 5 4 3 2 1 HTTP 500 test:1", page)
    assert "unfinished" in page
    assert page.index("test:2") < page.index("test:1")


def test_it_says_that_there_was_no_run(get):
    assert "The reconciler has never run." in words(get("/runs"))


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/", 405), ("GET", "/nowhere", 404), ("DELETE", "/runs", 405)]
)
def test_errors_are_pages_that_say_what_to_do(client, auth, method, path, status):
    response = client.open(path, method=method, headers=auth)
    assert response.status_code == status
    assert "What to do" in words(response.text)


def test_a_database_that_is_away_is_a_503_page(make_client, auth, ledger):
    client = make_client()
    with database.connection_context():
        database.execute_sql("ALTER TABLE task RENAME TO gone")
    page = client.get("/", headers=auth)
    assert page.status_code == 503
    assert "flask --app wsgi migrate" in words(page.text)
    assert "gone" not in page.text


def test_the_assets_are_ours_and_small(client):
    with client.get("/static/backstop.css") as style, client.get("/static/favicon.svg") as icon:
        assert (style.status_code, icon.status_code) == (200, 200)
        assert len(style.data) + len(icon.data) < 40_000
        assert not re.search(rb"url\(|@import", style.data)
