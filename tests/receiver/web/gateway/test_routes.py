"""What the gateway relays, for whom, and what stays ours."""

import socket

import pytest

from receiver.ledger.models import Task
from tests.conftest import API_KEY, CALLBACK_TOKEN
from tests.processes import free_port

ONE = "ro_key-that-only-reads"


@pytest.fixture
def database_url(sqlite_template, tmp_path) -> str:
    """SQLite only: what is relayed leaves no row."""
    path = tmp_path / "backstop.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


def error_of(response) -> str:
    """Return the code of an error, which is in upstream's form."""
    body = response.json
    assert body["success"] is False
    assert body["trace_id"] == response.headers["x-trace-id"]
    assert body["error"]["message"]
    return body["error"]["code"]


@pytest.mark.parametrize("token", [API_KEY, "test-token"])
def test_it_relays_what_it_does_not_understand_as_it_is(gateway, upstream, token):
    upstream.answer = lambda _, connection: connection.send_json(
        {"seed": "1"}, 201, x_trace_id="theirs", Retry_After="3"
    )
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    answer = gateway.post("/midjourney/seed?a=%2F&b", data=b'{"image_id":  "x"}', headers=headers)
    request = upstream.received[0]
    assert (request.method, request.target) == ("POST", "/midjourney/seed?a=%2F&b")
    assert request.body == b'{"image_id":  "x"}'
    assert request.headers["Authorization"] == "Bearer test-token"
    assert (answer.status_code, answer.json) == (201, {"seed": "1"})
    assert (answer.headers["x-trace-id"], answer.headers["Retry-After"]) == ("theirs", "3")


def test_upstreams_headers_come_back_as_they_are_and_none_of_ours(gateway, upstream, auth):
    upstream.answer = lambda _, connection: connection.send_bytes(
        b"<p>", content_type="text/html", cache_control="max-age=60"
    )
    headers = gateway.get("/openai/models", headers=auth).headers
    assert headers["Cache-Control"] == "max-age=60"
    assert not {"Content-Security-Policy", "Referrer-Policy", "X-Content-Type-Options"} & set(headers.keys())


@pytest.mark.parametrize("path", ["/openai/models", "/suno/persona/a%20b", "/shorturl", "/new/a/b/c?q=1"])
def test_any_path_goes_to_upstream_which_answers_about_it(gateway, upstream, auth, path):
    upstream.answer = lambda _, connection: connection.send_json({"error": {"code": "no_api"}}, 404)
    answer = gateway.get(path, headers=auth)
    assert (answer.status_code, answer.json) == (404, {"error": {"code": "no_api"}})
    assert upstream.received[0].target == path


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "POST", "HEAD"])
def test_each_method_is_relayed(gateway, upstream, auth, method):
    gateway.open("/suno/voices/7", method=method, headers=auth)
    assert upstream.received[0].method == method


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/tasks", "/tasks/t1", "/runs/1/x", "/api/tasks", "/api/unknown", "/healthz", "/healthz/x"),
        *("/static/no.css", "/callbacks", "/callbacks/made-up/x", f"/callbacks/{CALLBACK_TOKEN}"),
        *("/callback/x", "/CALLBACKS/x", "/sign-in", "/tasks.csv"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_our_own_routes_win(gateway, upstream, auth, path, method):
    assert gateway.open(path, method=method, headers=auth).status_code < 500
    assert upstream.received == []


@pytest.mark.parametrize("path", ["/wp-login.php", "/unknown/x"])
def test_a_stranger_gets_the_same_404_as_ever_outside_of_upstreams_services(gateway, upstream, path):
    answer = gateway.get(path)
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    assert upstream.received == []


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/midjourney/imagine", {}),
        ("/midjourney/imagine", {"Authorization": "Bearer wrong"}),
        ("/unknown/x", {"Authorization": "Bearer wrong"}),
        ("/midjourney/imagine", {"Authorization": "Basic eDphcGkta2V5LW9mLXRoZS10ZXN0cw=="}),
    ],
)
def test_a_stranger_is_refused_in_upstreams_form_and_leaves_no_row(gateway, upstream, path, headers):
    answer = gateway.post(path, json={"prompt": "x"}, headers=headers)
    assert (answer.status_code, error_of(answer)) == (401, "invalid_token")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert upstream.received == []
    assert Task.select().count() == 0


def test_a_session_is_no_credential(gateway, upstream):
    page = gateway.get("/sign-in").text
    token = page.partition('name="csrf_token" value="')[2].partition('"')[0]
    assert gateway.post("/sign-in", data={"key": API_KEY, "csrf_token": token}).status_code == 303
    assert gateway.get("/").status_code == 200
    assert gateway.post("/midjourney/imagine", json={}).status_code == 401
    assert upstream.received == []


def test_without_upstreams_token_it_says_what_is_missing(make_client, auth):
    client = make_client(ACEDATACLOUD_API_TOKEN="")
    answer = client.post("/midjourney/imagine", json={}, headers=auth)
    assert (answer.status_code, error_of(answer)) == (503, "no_token")
    assert "ACEDATACLOUD_API_TOKEN" in answer.json["error"]["message"]


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 403), ("DELETE", 403)])
def test_a_key_that_only_reads_submits_nothing(make_client, upstream, method, status):
    client = make_client(ACEDATACLOUD_API_BASE_URL=upstream.url, API_KEY=f"web:{API_KEY},board:{ONE}")
    answer = client.open("/suno/persona", method=method, headers={"Authorization": f"Bearer {ONE}"})
    assert answer.status_code == status
    assert len(upstream.received) == (status == 200)
    assert status == 200 or error_of(answer) == "forbidden"


def test_an_upstream_that_cannot_be_reached_has_taken_nothing(make_client, auth):
    client = make_client(ACEDATACLOUD_API_BASE_URL=f"http://127.0.0.1:{free_port()}")
    answer = client.post("/midjourney/seed", json={}, headers=auth)
    assert (answer.status_code, error_of(answer)) == (502, "api_error")


def test_a_request_that_upstream_cuts_may_have_been_taken(gateway, upstream, auth):
    upstream.answer = lambda _, connection: connection.cut()
    answer = gateway.post("/midjourney/seed", json={}, headers=auth)
    assert (answer.status_code, error_of(answer)) == (504, "timeout")
    assert answer.json["trace_id"] in answer.json["error"]["message"]
    assert len(upstream.received) == 1


def test_parts_of_a_stream_come_as_they_are_sent(gateway, upstream, auth):
    def stream(_, connection):
        connection.begin_chunks(content_type="text/event-stream")
        connection.send_chunk(b"data: 1\n\n")
        read_first.recv(1)
        connection.send_chunk(b"data: 2\n\n")
        connection.send_chunk(b"")

    has_read, read_first = socket.socketpair()
    upstream.answer = stream
    answer = gateway.post("/glm/chat/completions", json={}, headers=auth, buffered=False)
    assert answer.mimetype == "text/event-stream"
    parts = iter(answer.response)
    assert next(parts) == b"data: 1\n\n"
    has_read.send(b"1")
    assert next(parts) == b"data: 2\n\n"
    has_read.close()
    read_first.close()


def test_a_body_that_is_too_large_is_not_sent(gateway, upstream, auth, monkeypatch):
    monkeypatch.setattr("receiver.web.gateway.passing.LARGEST_BODY_BYTES", 10)
    answer = gateway.post("/midjourney/seed", data=b"x" * 11, headers=auth)
    assert (answer.status_code, error_of(answer)) == (413, "request_too_large")
    assert upstream.received == []


@pytest.mark.parametrize("path", ["/suno/../midjourney/imagine", "/suno/%2e%2E/x", "/suno//x", "/a/b\\c"])
def test_a_path_that_upstream_could_read_otherwise_is_refused(gateway, upstream, auth, path):
    environ = {"RAW_URI": path, "REQUEST_URI": path}
    answer = gateway.get("/suno/x", headers=auth, environ_overrides=environ)
    assert (answer.status_code, error_of(answer)) == (400, "bad_request")
    assert upstream.received == []


def test_more_requests_than_may_last_are_refused_before_anything_is_sent(gateway, upstream, auth):
    lasting = gateway.application.extensions["backstop_lasting"]
    lasting.count = lasting._most
    answer = gateway.post("/midjourney/seed", json={}, headers=auth)
    assert (answer.status_code, error_of(answer), answer.headers["Retry-After"]) == (503, "busy", "5")
    assert upstream.received == []
    lasting.count = 0
    answer = gateway.get("/suno/x", headers=auth)
    assert (answer.status_code, lasting.count) == (200, 1)
    answer.close()
    assert lasting.count == 0
