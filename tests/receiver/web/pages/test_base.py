"""What holds for every page: who sees it, what it may load, that other people's texts stay texts."""

import html
import re
from urllib.parse import quote

import pytest

from receiver.app import create_app
from receiver.config import Settings
from receiver.ledger.engine.db import init_database
from receiver.ledger.engine.schema import migrate
from receiver.ledger.models import Delivery, Task, database
from receiver.web import intake
from receiver.web.guesses import FROM_AN_ADDRESS
from tests import factories
from tests.conftest import API_KEY, CALLBACK_TOKEN
from tests.html import SCRIPT, csrf_token, links, run_now, sign_in, words

PAGES = ("/", "/?span=7d", "/tasks", "/tasks/t1", "/runs", "/runs/1", "/deliveries/1")


@pytest.fixture
def hostile(client):
    """A ledger in which whatever can hold somebody else's text holds a script."""
    fields = {"trace_id": SCRIPT, "image_url": "javascript:alert(1)", "video_url": f"https://x/{SCRIPT}"}
    headers = [("User-Agent", SCRIPT)]
    factories.record(
        factories.body(SCRIPT, **fields, descriptions=[SCRIPT]), confirm=True, ref=SCRIPT, headers=headers
    )
    factories.record(factories.failure_body("t2", SCRIPT, SCRIPT), ref=SCRIPT, remote_addr=SCRIPT)
    factories.record(b"{", ref=SCRIPT)
    factories.look_up([factories.item(SCRIPT, type=SCRIPT, request={"prompt": SCRIPT})], error=SCRIPT)
    run_now(ago=400, calls=1, errors=1, error=SCRIPT)
    run_now(ago=300, calls=1, errors=1, error=SCRIPT)
    run_now(calls=1, errors=1, error=SCRIPT)


@pytest.mark.parametrize("path", [*PAGES, "/tasks.csv", "/tasks.jsonl"])
def test_a_page_is_shown_to_nobody_without_the_key(client, path):
    factories.record(factories.body("t1"))
    response = client.get(path)
    assert response.status_code == 401
    assert response.headers.getlist("WWW-Authenticate") == ['Bearer realm="Backstop"']  # no browser's window
    assert "API key" in words(response.text)
    assert "t1" not in words(response.text)


def test_the_key_may_be_a_bearer_token_or_the_password_of_http_basic(client, auth):
    assert client.get("/", headers=auth).status_code == 200
    assert client.get("/", auth=("anybody", API_KEY)).status_code == 200
    assert client.get("/", auth=("anybody", "wrong")).status_code == 401


@pytest.mark.parametrize("path", [*PAGES, "/tasks/unknown", "/nowhere", "/sign-in"])
def test_pages_may_load_and_do_nothing_beyond_themselves(client, auth, path):
    headers = client.get(path, headers=auth).headers
    assert headers["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " img-src 'self' https:; media-src https:; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    )
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"


def test_a_visitor_who_guesses_or_may_only_read_is_told_what_to_do(make_client):
    client = make_client(API_KEY=f"app:{API_KEY},watch:ro_key-of-the-tests")
    told = [sign_in(client, "wrong") for _ in range(FROM_AN_ADDRESS + 1)][-1]
    assert told.status_code == 429
    assert "Wait a minute, then send the right key once." in words(told.text)
    sign_in(client, "ro_key-of-the-tests")
    token = csrf_token(client.get("/").text)
    refused = client.post("/callback-url", data={"csrf_token": token})
    assert refused.status_code == 403
    assert "Sign out, and sign in with a key that may write" in words(refused.text)


@pytest.mark.parametrize("thumbnails", [True, False])
def test_pages_may_load_from_a_stand_in_on_this_machine_too(make_client, auth, thumbnails):
    client = make_client(ACEDATACLOUD_API_BASE_URL="http://127.0.0.1:9090", THUMBNAILS=thumbnails)
    stand_in = "https: http://127.0.0.1:9090"
    allowed = f"'self' {stand_in}; media-src {stand_in};" if thumbnails else "'self'; media-src 'none';"
    factories.record(factories.body("t1"), confirm=True)
    factories.look_up([factories.item("t1", {"success": True, "image_url": "http://127.0.0.1:9090/1.png"})])
    for path in ("/", "/tasks", "/tasks/t1"):
        response = client.get(path, headers=auth)
        policy = response.headers["Content-Security-Policy"]
        assert f"img-src {allowed}" in policy
        assert ('src="http://127.0.0.1:9090/1.png"' in response.text) == thumbnails


@pytest.mark.parametrize("path", ["/", "/tasks", "/sign-in", "/nowhere"])
def test_no_page_of_a_deployment_says_that_it_is_a_demo(client, auth, path):
    assert 'class="demo"' not in client.get(path, headers=auth).text


def test_without_thumbnails_nothing_is_loaded_from_elsewhere(make_client, auth):
    client = make_client(THUMBNAILS="false")
    factories.record(factories.body("t1", video_url="https://x/1.mp4"))
    for path in ("/", "/tasks", "/tasks/t1"):
        response = client.get(path, headers=auth)
        assert "img-src 'self';" in response.headers["Content-Security-Policy"]
        assert "media-src 'none'" in response.headers["Content-Security-Policy"]
        assert not re.search(r'(src|poster)="https?:', response.text)
    assert 'href="https://x/1.png"' in response.text


@pytest.mark.parametrize("path", [*PAGES, "/tasks?status=pending", "/tasks?q=t1", "/nowhere"])
def test_pages_have_no_inline_script_or_style_and_load_nothing_from_elsewhere(client, auth, path):
    factories.record(factories.body("t1", image_url=None, progress=40))
    run_now()
    page = client.get(path, headers=auth).text
    assert not re.search(r"<script(?! src=)", page)
    assert not re.search(r"\sstyle=|\son[a-z]+=|<style", page)
    assert all(url.startswith(("/", "#")) for url in links(page))


@pytest.mark.usefixtures("hostile")
def test_hostile_texts_stay_texts(get):
    task = f"/tasks/{quote(SCRIPT, safe='')}"
    lists = ("/", "/tasks", f"/tasks?q={quote(SCRIPT)}", f"/tasks?type={quote(SCRIPT)}")
    for path in (*lists, task, "/tasks/t2", "/runs", "/runs/1", "/runs/2", "/deliveries/1", "/deliveries/3"):
        page = get(path)
        assert not re.search(r"<script(?! src=\"/static/)", page)
        assert html.unescape(page).count(SCRIPT), path
        assert not [url for url in links(page) if url.lower().startswith("javascript")]


def test_texts_that_cannot_be_encoded_do_not_break_a_page(get):
    body = b'{"task_id": "t1", "success": false, "error": {"code": "\\ud800", "message": "a\\u0000b"}}'
    factories.record(body)
    assert "\\ud800" in words(get("/tasks/t1"))
    for path in ("/", "/tasks", "/deliveries/1"):
        get(path)


def test_the_token_is_on_no_page_and_in_no_export(client, auth, get):
    url = f"https://hooks.example.com/callbacks/{CALLBACK_TOKEN}/order-1"
    factories.record(factories.body("t1", note=url, descriptions=[url]), confirm=True, ref=url)
    factories.look_up([factories.item("t1", request={"prompt": url, "callback_url": url})])
    factories.record(factories.failure_body("t2", url, url), ref=url, confirm=True)
    factories.look_up(error=url)
    factories.record(b"[]", ref=url, headers=[("X-Url", url), ("X-Token", CALLBACK_TOKEN)])
    factories.record(f"no JSON but a token: {CALLBACK_TOKEN}".encode())
    factories.record(factories.body("t3", note=url).replace(b"/", b"\\/"))
    run_now(calls=1, errors=1, error=url)
    with database.connection_context():  # as if it had been stored unmasked
        Task.update(prompt=url, type=url).where(Task.id == "t1").execute()
        deliveries = [f"/deliveries/{delivery.id}" for delivery in Delivery.select()]
    pages = ("/", "/tasks", "/tasks/t1", "/tasks/t2", "/runs", "/runs/1", "/tasks?disputed=true", *deliveries)
    for path in pages:
        assert CALLBACK_TOKEN not in get(path), path
    assert CALLBACK_TOKEN not in get("/nowhere", 404)
    assert "/callbacks/***/order-1" in get("/tasks/t1")
    for path in ("/tasks.csv", "/tasks.jsonl"):
        export = client.get(path, headers=auth).text
        assert CALLBACK_TOKEN not in export
        assert "/callbacks/***/order-1" in export


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/runs/99", 404),
        ("GET", "/deliveries/99", 404),
        ("DELETE", "/runs", 405),
    ],
)
def test_errors_are_pages_that_say_what_to_do(client, auth, method, path, status):
    response = client.open(path, method=method, headers=auth)
    assert response.status_code == status
    assert "What to do" in words(response.text)


def test_an_unknown_path_is_told_as_such(client, auth):
    page = words(client.get("/nowhere", headers=auth).text)
    assert "There is nothing at this path. What to do" in page
    told = client.get("/api/nowhere", headers=auth).json["error"]["message"]
    assert told == "There is nothing at this path. GET /openapi.json lists the paths for programs."


def test_the_address_of_a_form_says_so(client, auth):
    page = client.get("/upstream", headers=auth)
    assert (page.status_code, "Nothing is shown at this address" in page.text) == (405, True)


def test_an_order_that_comes_too_late_is_told_to_look_again(client):
    sign_in(client, API_KEY)
    token = csrf_token(client.get("/").text)
    page = client.post("/upstream", data={"csrf_token": token, "do": "probe"})
    assert (page.status_code, "things have changed since it was shown" in page.text) == (409, True)


def test_programs_get_errors_as_json(client, ledger):
    answer = client.get("/tasks.csv?limit=x", headers={"Authorization": "Bearer wrong"})
    assert (answer.status_code, answer.json["error"]["code"]) == (401, "unauthorized")


def test_an_error_of_ours_is_a_page_too(client, auth, monkeypatch):
    monkeypatch.setattr("receiver.web.pages.overview.summarise", None)
    client.application.config["PROPAGATE_EXCEPTIONS"] = False
    response = client.get("/", headers=auth)
    assert response.status_code == 500
    assert "The web process's log says what happened." in words(response.text)
    assert "NoneType" not in response.text


REFRESHES = '<noscript><meta http-equiv="refresh" content="10"></noscript>'


@pytest.fixture
def without_database(make_client):
    """The application on a ledger that does not work, though its schema is current."""
    client = make_client()
    with database.connection_context():
        database.execute_sql("ALTER TABLE task RENAME TO gone")
    return client


@pytest.mark.parametrize("path", ["/", "/tasks?q=a%26b", "/tasks/t1", "/runs"])
def test_a_database_that_is_away_is_a_503_page_that_refreshes_itself(without_database, auth, path):
    if path == "/runs":
        with database.connection_context():
            database.execute_sql("ALTER TABLE reconcile_run RENAME TO gone_too")
    page = without_database.get(path, headers=auth)
    assert page.status_code == 503
    assert "Yes. Callbacks that the database cannot store wait in the spool" in words(page.text)
    assert "0 deliveries wait there now." in words(page.text)
    assert "migrate" not in page.text
    assert "gone" not in page.text
    assert REFRESHES in page.text
    assert path in links(page.text)


def test_who_is_signed_in_is_told_why_the_database_is_away(without_database):
    sign_in(without_database, API_KEY)
    page = words(without_database.get("/").text)
    assert "The reason: " in page
    assert "task" in page.partition("The reason: ")[2].partition("Check that")[0]


def test_it_says_how_many_callbacks_wait_and_how_many_were_refused(without_database, auth, monkeypatch):
    for _ in range(3):
        answer = without_database.post(f"/callbacks/{CALLBACK_TOKEN}", data=factories.body("t1"))
        assert answer.status_code == 202
    assert "3 deliveries wait there now." in words(without_database.get("/", headers=auth).text)
    monkeypatch.setattr("receiver.web.errors.kept_meanwhile", lambda: intake.Kept(spooled=None, refused=2))
    page = words(without_database.get("/", headers=auth).text)
    assert "No. Neither the database nor the spool can store callbacks" in page
    assert "2 callbacks were refused and are lost" in page
    monkeypatch.setattr("receiver.web.errors.kept_meanwhile", lambda: intake.Kept(spooled=3, refused=1))
    assert "Not all of them. Callbacks that the database cannot store" in words(
        without_database.get("/", headers=auth).text
    )


def test_a_form_that_found_no_database_is_not_sent_again(without_database, auth):
    token = csrf_token(without_database.get("/sign-in").text)
    page = without_database.post("/tasks/t1", data={"csrf_token": token}, headers=auth)
    assert page.status_code == 503
    assert REFRESHES not in page.text
    assert "hx-get" not in page.text
    assert "What you asked for was not done: ask again when the database is back." in words(page.text)


def test_a_database_without_a_schema_names_the_command(empty_url, auth, tmp_path):
    init_database(empty_url)
    environ = {"DATABASE_URL": empty_url, "CALLBACK_TOKEN": CALLBACK_TOKEN, "API_KEY": API_KEY}
    client = create_app(Settings.from_env(environ | {"SPOOL_DIR": str(tmp_path / "spool")})).test_client()
    page = client.get("/", headers=auth)
    assert page.status_code == 503
    assert "The database lacks a migration." in words(page.text)
    assert "flask --app wsgi migrate" in words(page.text)
    migrate()
    assert client.get("/", headers=auth).status_code == 200
    database.obj.close_all()


def test_other_errors_say_nothing_of_callbacks_and_do_not_refresh(get):
    for page in (get("/nowhere", 404), get("/tasks?status=odd", 400)):
        assert "callbacks" not in words(page)
        assert "refresh" not in page.partition("<footer>")[0]


def test_the_first_view_is_small(client, auth):
    for n in range(60):
        factories.record(factories.body(f"t{n}"), ref=f"order-{n}", remote_addr="203.0.113.7")
    page = client.get("/", headers=auth)
    sizes = {"/": len(page.data)}
    for url in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
        with client.get(url) as asset:
            assert asset.status_code == 200
            sizes[url] = len(asset.data)
    assert sum(sizes.values()) < 100_000, sizes
    assert {url.rpartition(".")[2] for url in sizes} == {"/", "css", "js", "svg"}


def test_what_is_vendored_has_its_licence_beside_it(client):
    with client.get("/static/vendor/htmx-LICENSE") as licence:
        assert "Zero-Clause BSD" in licence.text
