"""docs/security.md: its table of who can reach what, its sizes and its claims about pages, at the application."""

import re
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from receiver.web.guesses import ALTOGETHER, FROM_AN_ADDRESS
from tests.conftest import API_KEY, CALLBACK_TOKEN
from tests.factories import body
from tests.html import csrf_token, sign_in
from tests.scripted import Scripted
from tests.sources import ROOT

TEXT = (ROOT / "docs/security.md").read_text()
READER, TOKEN = "ro_key-of-the-tests", "test-token"
Request = Callable[[FlaskClient, dict[str, str]], TestResponse]


def ask(method: str, path: str, **content: object) -> Request:
    return lambda client, headers: client.open(path, method=method, headers=headers, buffered=True, **content)


def callback(client: FlaskClient, headers: dict[str, str]) -> TestResponse:
    token = CALLBACK_TOKEN if "callback" in headers else TOKEN
    return client.post(f"/callbacks/{token}", data=body("t1"), headers=headers)


def form(client: FlaskClient, headers: dict[str, str]) -> TestResponse:
    page = client.get("/", headers=headers)
    if page.status_code == 429:  # a wrong key, too often: there is no form
        return page
    if "csrf_token" not in page.text:  # one who may only read is shown no form, and makes up a request
        page = client.get("/sign-in")
    token = csrf_token(page.text)
    return client.post("/callback-url", data={"csrf_token": token}, headers=headers)


# What stands for each row of the table, in its order.
ROWS: tuple[tuple[str, list[Request]], ...] = (
    (
        "`/healthz`",
        [ask("GET", path) for path in ("/healthz", "/openapi.json", "/sign-in", "/static/backstop.css")],
    ),
    ("`/readyz`: that", [ask("GET", "/readyz")]),
    ("`/readyz`: why", [ask("GET", "/readyz")]),
    ("`POST /callbacks/", [callback]),
    ("`GET /api/", [ask("GET", path) for path in ("/api/tasks", "/api/events", "/api/forwards", "/metrics")]),
    ("changes under", [ask("POST", "/api/tasks", json={"id": "t1"}), ask("POST", "/api/tasks/acknowledge")]),
    ("pages and exports", [ask("GET", path) for path in ("/", "/tasks", "/tasks.csv", "/settings")]),
    ("what the pages' forms", [form]),
    (
        "gateway: look-ups",
        [ask("POST", "/midjourney/tasks", json={"action": "retrieve", "id": "t"}), ask("GET", "/models")],
    ),
    ("gateway: submissions", [ask("POST", "/midjourney/imagine", json={"prompt": "p"})]),
)
WHO = {
    "stranger": {},
    "callback URL": {"callback": "the URL has it"},
    "`ro_` key": {"Authorization": f"Bearer {READER}"},
    "key": {"Authorization": f"Bearer {API_KEY}"},
    "upstream's token": {"Authorization": f"Bearer {TOKEN}"},
    "session": {"session": "the cookie has it"},
}


def table() -> dict[str, dict[str, str]]:
    """Return the cells by row and column."""
    part = TEXT.partition("## Who can reach what")[2].partition("\n\n- ")[0].strip().splitlines()
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in part)
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


@pytest.fixture
def make_visitor(make_client) -> Callable[[str], FlaskClient]:
    def make(upstream: str) -> FlaskClient:
        return make_client(API_KEY=f"app:{API_KEY},watch:{READER}", ACEDATACLOUD_API_BASE_URL=upstream)

    return make


def may(answer: TestResponse, row: str) -> bool:
    if "why" in row:
        return "reason" in (answer.json["upstream"] or {})
    return answer.status_code not in {401, 403, 404, 429}


@pytest.mark.parametrize("who", WHO)
def test_each_reaches_what_the_table_says_and_nothing_else(make_visitor, who):
    with Scripted() as upstream:
        client = make_visitor(upstream.url)
        if who == "session":
            assert sign_in(client, API_KEY).status_code == 303
        documented = table()
        assert len(documented) == len(ROWS)
        for (begins, requests), (row, cells) in zip(ROWS, documented.items(), strict=True):
            assert row.startswith(begins)
            told = {may(request(client, WHO[who]), row) for request in requests}
            assert told == {cells[who] == "yes"}, (row, who)


def test_a_session_of_a_key_that_reads_only_reads(make_visitor):
    client = make_visitor("http://127.0.0.1:9")
    sign_in(client, READER)
    assert client.get("/tasks").status_code == 200
    assert form(client, {}).status_code == 403


def test_it_tells_the_limits_of_guesses():
    assert f"Beyond {FROM_AN_ADDRESS} a minute from one address" in TEXT
    assert f"or {ALTOGETHER} a minute altogether" in TEXT


def test_answers_have_the_headers_that_it_tells_of(client, auth):
    told = re.findall(r"`(X-Content-Type-Options|Referrer-Policy|Cache-Control): ([a-z-]+)`", TEXT)
    assert len(told) == 3
    for path in ("/", "/nowhere", "/api/tasks", "/api/nothing", "/readyz", "/openapi.json"):
        headers = client.get(path, headers=auth).headers
        assert {(name, headers[name]) for name, _ in told} == set(told), path


def test_pages_load_nothing_but_what_it_tells_of(client, auth):
    headers = client.get("/", headers=auth).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == (
        "'none'",
        "'self'",
        "'self'",
    )
    assert policy["frame-ancestors"] == "'none'"
    assert "img-src 'self' https:" in headers["Content-Security-Policy"]


def test_without_thumbnails_pages_load_from_nowhere_else(make_client, auth):
    policy = make_client(THUMBNAILS="false").get("/", headers=auth).headers["Content-Security-Policy"]
    assert "https:" not in policy
