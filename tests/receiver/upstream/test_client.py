"""The client against a real server: each line of upstream's error table, and the faults of the network."""

import contextlib
import gzip
import json
import socket
import threading
import time
import zlib
from datetime import datetime, timedelta

import pytest

from receiver.upstream import client as upstream_module
from receiver.upstream import services
from receiver.upstream.client import ErrorScope, Upstream, UpstreamError
from receiver.upstream.errors import meaning_of
from receiver.upstream.results import is_storable, read_item
from tests.factories import SAMPLES
from tests.processes import free_port

TOKEN = "test-token"


@pytest.fixture
def upstream(stand_in):
    return Upstream(stand_in.url, TOKEN, connections=2)


def error_of(upstream: Upstream) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        upstream.retrieve_batch(services.DEFAULT, ["t1"])
    return caught.value


def test_it_asks_for_as_many_items_as_it_has_ids(stand_in, upstream):
    ids = [f"task-{n}" for n in range(50)]
    for task_id in ids:
        stand_in.add_record({"id": task_id})
    assert sorted(item["id"] for item in upstream.retrieve_batch(services.DEFAULT, ids)) == sorted(ids)
    (call,) = stand_in.calls
    assert call.body == {"action": "retrieve_batch", "ids": ids, "limit": 50, "offset": 0}
    assert call.headers["authorization"] == f"Bearer {TOKEN}"
    assert call.headers["x-record-exempt"] == "true"


class TestSingle:
    """Some services take one id in a call, and say in several ways that they do not know it."""

    SERVICE = services.SERVICES["digital-human"]

    @pytest.mark.parametrize("record", [{"state": "succeed"}, {"task_id": "task_1", "state": "succeed"}])
    def test_it_asks_by_the_services_own_name_for_the_id(self, stand_in, upstream, record):
        stand_in.respond_next(200, body=json.dumps(record).encode())
        (item,) = upstream.retrieve(self.SERVICE, "task_1")
        assert read_item(item).task_id == "task_1"
        (call,) = stand_in.calls
        assert call.body == {"action": "retrieve", "task_id": "task_1"}

    @pytest.mark.parametrize(
        ("status", "answer"),
        [(200, {}), (404, {"error": {"code": "no_task"}}), (404, {"error": {"code": "not_found"}})],
    )
    def test_an_unknown_id_is_no_error(self, stand_in, upstream, status, answer):
        stand_in.respond_next(status, body=json.dumps(answer).encode())
        assert upstream.retrieve(self.SERVICE, "task_1") == []

    @pytest.mark.parametrize(("status", "body"), [(404, b"<html>"), (500, b""), (200, b"[]"), (200, b"x")])
    def test_everything_else_is_one(self, stand_in, upstream, status, body):
        stand_in.respond_next(status, body=body)
        with pytest.raises(UpstreamError):
            upstream.retrieve(self.SERVICE, "task_1")


def test_it_lists_what_is_recent_between_two_moments_newest_first(stand_in, upstream):
    for second in range(10):
        stand_in.add_record({"id": f"task-{second}", "created_at": 1767225600 + second + 0.5})
    since, until = datetime(2026, 1, 1, 0, 0, 3, 900_000), datetime(2026, 1, 1, 0, 0, 7, 100_000)
    page = upstream.list_recent(services.DEFAULT, since=since, until=until, limit=3, offset=1)
    assert [item["id"] for item in page] == ["task-6", "task-5", "task-4"]
    upstream.list_recent(services.DEFAULT, since=since, until=None, limit=50, offset=0)
    first, second = stand_in.calls
    assert first.body == {
        "action": "retrieve_batch",
        "limit": 3,
        "offset": 1,
        "created_at_min": 1767225603,
        "created_at_max": 1767225608,
    }
    assert second.body.keys() == {"action", "limit", "offset", "created_at_min"}


def test_an_error_of_a_list_is_an_error(stand_in, upstream):
    stand_in.respond_next(200, body=b'{"items": {}}')
    with pytest.raises(UpstreamError, match="not a list of tasks"):
        upstream.list_recent(services.DEFAULT, since=datetime(2026, 1, 1), until=None, limit=50, offset=0)


def test_unknown_ids_are_absent(upstream):
    assert upstream.retrieve_batch(services.DEFAULT, ["unknown"]) == []


@pytest.mark.parametrize(
    ("status", "code", "permanent", "scope"),
    [
        (400, "bad_request", True, "id"),
        (400, "token_mismatched", True, "account"),
        (400, "invalid_request", True, "id"),
        (400, "a_code_that_nobody_knows", True, "id"),
        (422, "a_code_that_nobody_knows", True, "call"),
        (413, "request_too_large", True, "size"),
        (400, "api_not_implemented", True, "call"),
        (400, "no_token", True, "account"),
        (401, "invalid_token", True, "account"),
        (401, "token_expired", True, "account"),
        (401, "token_mismatched", True, "account"),
        (403, "used_up", True, "account"),
        (403, "disabled", True, "service"),
        (400, "disabled", True, "service"),
        (400, "invalid_token", True, "account"),
        (402, "insufficient_balance", True, "account"),
        (404, "no_api", True, "service"),
        (404, "not_found", True, "id"),
        (404, "no_task", True, "id"),
        (403, "forbidden", True, "id"),
        (408, "timeout", False, "call"),
        (409, "conflict", False, "call"),
        (429, "too_many_requests", False, "call"),
        (500, "api_error", False, "call"),
        (502, "bad_gateway", False, "call"),
        (503, "unavailable", False, "call"),
        (504, "timeout", False, "call"),
    ],
)
def test_it_tells_permanent_from_transient_and_whom_it_concerns(
    stand_in, upstream, status, code, permanent, scope
):
    answer = {"success": False, "error": {"code": code, "message": "what upstream says"}, "trace_id": "x"}
    stand_in.respond_next(status, body=json.dumps(answer).encode())
    error = error_of(upstream)
    assert (error.permanent, error.scope.value) == (permanent, scope)
    assert error.throttled == (status == 429)
    assert str(error) == f"upstream answered {status} {code}: what upstream says"


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 409, 413, 429, 499, 500, 503])
@pytest.mark.parametrize(
    ("codes", "permanent", "scope", "throttled"),
    [
        ("bad_request invalid_request not_found no_task forbidden", True, "id", False),
        ("invalid_token token_expired token_mismatched no_token", True, "account", False),
        ("used_up insufficient_balance", True, "account", False),
        ("disabled no_api", True, "service", False),
        ("request_too_large", True, "size", False),
        ("too_many_requests", False, "call", True),
        ("api_error unknown busy timeout connection_reset", False, "call", False),
    ],
)
def test_the_code_decides_whatever_the_status(status, codes, permanent, scope, throttled):
    for code in codes.split():
        meaning = meaning_of(status, code)
        told = (meaning.permanent, meaning.scope.value, meaning.throttled, meaning.is_known)
        assert told == (permanent, scope, throttled, True)


@pytest.mark.parametrize(
    ("status", "scope"),
    [(401, "account"), (402, "account"), (413, "size"), (400, "id"), (403, "call"), (404, "call")],
)
def test_without_a_code_the_status_decides(status, scope):
    assert meaning_of(status, None).scope.value == scope


@pytest.mark.parametrize(
    "answer", [b'\xef\xbb\xbf{"items": [{"id": "t1"}]}', b"{}", b" {} ", b"\xef\xbb\xbf{}"]
)
def test_a_byte_order_mark_does_not_matter_and_an_empty_object_knows_none(stand_in, upstream, answer):
    stand_in.respond_next(200, body=answer)
    assert upstream.retrieve_batch(services.DEFAULT, ["t1"]) == ([{"id": "t1"}] if b"items" in answer else [])


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_a_compressed_answer_is_read(stand_in, upstream, compress):
    headers = {"Content-Encoding": "gzip" if compress is gzip.compress else "deflate"}
    stand_in.respond_next(200, headers, compress(b'{"items": [{"id": "t1"}]}'))
    assert upstream.retrieve_batch(services.DEFAULT, ["t1"]) == [{"id": "t1"}]


def test_a_compressed_answer_is_bounded_by_what_it_holds(stand_in, upstream):
    bomb = gzip.compress(b'{"items": [{"id": "' + b"x" * 64 * 2**20 + b'"}]}')
    stand_in.respond_next(200, {"Content-Encoding": "gzip"}, bomb)
    error = error_of(upstream)
    assert (error.permanent, error.scope) == (True, ErrorScope.SIZE)


@pytest.mark.parametrize("spoilt", [b"[" * 100 + b"]" * 100, b"[" + b"{}," * 500_000 + b"{}]"])
def test_an_answer_that_one_task_makes_unreadable_is_asked_for_in_smaller_parts(stand_in, upstream, spoilt):
    stand_in.respond_next(200, body=b'{"items": [{"id": "t1", "x": ' + spoilt + b"}]}")
    assert error_of(upstream).scope is ErrorScope.SIZE


@pytest.mark.parametrize("id_", [5, {"task": {"id": "5"}}])
def test_ids_are_compared_as_texts_wherever_they_stand(stand_in, upstream, id_):
    item = id_ if isinstance(id_, dict) else {"id": id_}
    stand_in.respond_next(200, body=json.dumps({"items": [item]}).encode())
    assert upstream.retrieve_batch(services.DEFAULT, ["5"]) == [item]
    assert len(stand_in.calls) == 1


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, (SAMPLES / "error_500.json").read_bytes(), "upstream answered 500 api_error: fetch failed"),
        (
            503,
            (SAMPLES / "error_bare_string.json").read_bytes(),
            "upstream answered 503: upstream connect error",
        ),
        (502, b"<html>Bad gateway</html>", "upstream answered 502: no error that could be read"),
        (500, b'{"error": {"code": 5, "message": ["x"]}}', "upstream answered 500 5: ['x']"),
        (500, b'{"error": null}', "upstream answered 500: no error that could be read"),
        (500, b"\xff", "upstream answered 500: no error that could be read"),
        (307, b"", "upstream answered 307: no error that could be read"),
        (200, b"<html>", "upstream answered 200 with something that is not a list of tasks"),
        (200, b"[]", "upstream answered 200 with something that is not a list of tasks"),
        (200, b'{"items": {}}', "upstream answered 200 with something that is not a list of tasks"),
        (
            200,
            b'{"items": null, "count": 0}',
            "upstream answered 200 with something that is not a list of tasks",
        ),
    ],
)
def test_whatever_upstream_answers_is_items_or_an_error(stand_in, upstream, status, body, said):
    stand_in.respond_next(status, {"Location": "/elsewhere"}, body)
    assert str(error_of(upstream)) == said


@pytest.mark.parametrize(
    "words", ["a\0b", "\ud800", "two\nlines\r\n", "x" * 9999, "see https://x/callbacks/s3cret/1"]
)
def test_whatever_upstream_says_is_one_line_that_a_database_can_hold(stand_in, upstream, words):
    stand_in.respond_next(500, body=json.dumps({"error": {"code": words, "message": words}}).encode())
    said = str(error_of(upstream))
    assert is_storable(said)
    assert said.isprintable()
    assert len(said) <= 400
    assert "s3cret" not in said


@contextlib.contextmanager
def dripping(head: bytes, drop: bytes, calls: int = 1):
    """A server that begins each answer at once and then sends a drop of it every 50 ms."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip():
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(head)
                while not over.wait(0.05):
                    connection.sendall(drop)

        over = threading.Event()
        threads = [threading.Thread(target=drip) for _ in range(calls)]
        for thread in threads:
            thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        over.set()
        for thread in threads:
            thread.join(10)


@pytest.mark.parametrize(
    ("head", "drop", "said", "scope"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b" ", "too long to read", ErrorScope.CALL),
        (b"HTTP/1.1 200 OK\r\n\r\n", b" " * 2**20, "too long to read", ErrorScope.SIZE),
        (b"HTTP/1.1 200 OK\r\nX-Drips: ", b"x", "no answer from upstream within 0.5 s", ErrorScope.CALL),
    ],
    ids=["body", "large body", "headers"],
)
def test_an_answer_that_drips_is_given_up(monkeypatch, head, drop, said, scope):
    monkeypatch.setattr(upstream_module, "CALL_WITHIN_SECONDS", 0.5)
    began = time.monotonic()
    with dripping(head, drop) as url:
        error = error_of(Upstream(url, TOKEN, connections=1))
        took = time.monotonic() - began
    assert said in str(error)
    assert (error.permanent, error.scope) == (False, scope)
    assert 0.5 <= took < 60


def test_a_name_server_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(upstream_module, "CALL_WITHIN_SECONDS", 0.3)
    answered, began = threading.Event(), time.monotonic()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: answered.wait(120) and [])
    try:
        error = error_of(Upstream("http://upstream.example.com", TOKEN, connections=1))
    finally:
        answered.set()
    assert time.monotonic() - began < 60
    assert str(error) == "no answer from upstream within 0.3 s"


def test_all_pages_of_a_look_up_have_one_deadline(stand_in, upstream, monkeypatch):
    monkeypatch.setattr(upstream_module, "CALL_WITHIN_SECONDS", 5.0)  # for the first of them
    stand_in.respond_next(200, body=b'{"items": [{"id": "x"}]}', times=1000)
    left = []

    def wait(seconds_left):
        left.append(seconds_left)
        time.sleep(seconds_left + 0.05)

    with pytest.raises(UpstreamError, match="no answer from upstream within 5 s"):
        upstream.retrieve_batch(services.DEFAULT, ["a"], wait)
    assert (len(left), len(stand_in.calls)) == (1, 1)
    assert 0 < left[0] < 5


def test_an_answer_may_take_longer_than_a_connection(stand_in, upstream, monkeypatch):
    monkeypatch.setattr(upstream_module, "_CONNECT_WITHIN_SECONDS", 0.2)
    stand_in.options.latency = 0.6
    stand_in.add_record({"id": "t1"})
    assert upstream.retrieve_batch(services.DEFAULT, ["t1"]) == [{"id": "t1"}]


def test_an_answer_that_never_comes_is_given_up(stand_in, monkeypatch):
    monkeypatch.setattr(upstream_module, "CALL_WITHIN_SECONDS", 0.3)
    stand_in.options.change({"rate_hang": 1.0, "hang_seconds": 2})
    error = error_of(Upstream(stand_in.url, TOKEN, connections=1))
    assert (error.permanent, error.scope) == (False, ErrorScope.CALL)
    assert str(error) == "no answer from upstream within 0.3 s"


def test_answers_that_drip_for_ever_are_in_the_way_of_one_call_only(stand_in, monkeypatch):
    monkeypatch.setattr(upstream_module, "CALL_WITHIN_SECONDS", 0.8)  # in which each one begins
    with dripping(b"HTTP/1.1 200 OK\r\nX-Drips: ", b"x", calls=4) as url:
        upstream = Upstream(url, TOKEN, connections=1)
        for _ in range(4):
            error_of(upstream)
        upstream._base_url = stand_in.url
        error_of(upstream)  # no thread was free
        monkeypatch.setattr(upstream_module, "CALL_WITHIN_SECONDS", 10)
        assert upstream.retrieve_batch(services.DEFAULT, ["t1"]) == []


def test_the_token_stays_out_of_its_errors(stand_in, upstream):
    stand_in.respond_next(401, body=json.dumps({"error": {"code": "x", "message": f"bad {TOKEN}"}}).encode())
    assert TOKEN not in str(error_of(upstream))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7), (" 0 ", 0), ("Fri, 01 Jan 2100 00:00:00 GMT", 10**8), ("Fri, 01 Jan 2010 00:00:00 GMT", 0),
        ("soon", None), ("-5", None), ("1.5", None), ("", None), ("9" * 30, 10**8),
        ("Friday, 01-Jan-2010 00:00:00 GMT", 0), ("Fri, 01 Jan 2010 00:00:00 -0500", 0), ("²", None),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999999999", None), ("Fri, 31 Dec 9999 23:59:59 -2300", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [429, 503])
def test_it_reads_when_to_come_back(stand_in, upstream, header, seconds, status):
    stand_in.respond_next(status, {"Retry-After": header})
    error = error_of(upstream)
    assert error.throttled == (status == 429 or seconds is not None)
    if seconds is None:
        assert error.retry_after is None
    elif seconds < 10**8:
        assert error.retry_after == timedelta(seconds=seconds)
    else:
        assert error.retry_after > timedelta(days=365)


def test_it_follows_the_pages_while_ids_are_missing_and_pages_are_full(stand_in, upstream):
    pages = [[{"id": "a"}, {"id": "a"}, {"id": "x"}], [{"id": "b"}, {"id": "x"}, {"id": "x"}], [{"id": "c"}]]
    for page in pages:
        stand_in.respond_next(200, body=json.dumps({"items": page, "count": 1}).encode())
    assert [item["id"] for item in upstream.retrieve_batch(services.DEFAULT, ["a", "b", "c"])] == [*"aaxbxxc"]
    assert [call.body["offset"] for call in stand_in.calls] == [0, 3, 6]


def test_it_follows_no_page_for_ever(stand_in, upstream):
    stand_in.respond_next(200, body=b'{"items": [{"id": "x"}]}', times=1000)
    assert len(upstream.retrieve_batch(services.DEFAULT, ["a"])) == len(stand_in.calls) == 20


def test_a_cut_connection_is_transient(stand_in, upstream):
    stand_in.options.rate_cut = 1.0
    stand_in.add_record({"id": "t1"})
    error = error_of(upstream)
    assert (error.permanent, error.scope) == (False, ErrorScope.CALL)
    assert "no answer from upstream" in str(error)


def test_nobody_listening_is_transient():
    error = error_of(Upstream(f"http://127.0.0.1:{free_port()}", TOKEN, connections=1))
    assert not error.permanent
    assert "refused" in str(error)


def test_it_asks_once_and_leaves_trying_again_to_its_caller(stand_in, upstream):
    stand_in.respond_next(503)
    error_of(upstream)
    assert len(stand_in.calls) == 1


def test_it_works_again_after_the_server_went_away(stand_in, upstream):
    stand_in.options.rate_cut = 1.0
    error_of(upstream)
    stand_in.options.rate_cut = 0.0
    assert upstream.retrieve_batch(services.DEFAULT, ["t1"]) == []
