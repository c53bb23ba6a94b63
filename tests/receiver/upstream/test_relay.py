"""Relaying over real sockets: what goes out, what comes back, and what a failure says."""

import socket
from collections.abc import Iterator

import pytest

from receiver.upstream.relay import NotRelayed, Outgoing, Relay
from tests.processes import free_port
from tests.scripted import Scripted

TOKEN = "token-of-upstream"


@pytest.fixture
def upstream() -> Iterator[Scripted]:
    with Scripted() as server:
        yield server


@pytest.fixture
def relay(upstream: Scripted) -> Relay:
    return Relay(upstream.url, TOKEN, silent_for=0.3)


def post(relay: Relay, body: bytes = b"{}", **headers: str) -> tuple[int, dict[str, str], bytes]:
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    relayed = relay.send(Outgoing("POST", "/imagined/fast?x=1", named, body))
    return relayed.status, dict(relayed.headers), b"".join(relayed.chunks())


def test_it_sends_the_body_as_it_is_with_our_token(upstream, relay):
    post(relay, b'{"a":  1}', content_type="application/json", accept="x/y")
    request = upstream.received[0]
    assert (request.method, request.target, request.body) == ("POST", "/imagined/fast?x=1", b'{"a":  1}')
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"] == "x/y"


def test_no_secret_of_the_caller_and_nothing_that_smuggles_goes_out(upstream, relay):
    smuggled = {"Transfer-Encoding": "chunked", "Content-Length": "7", "Host": "else", "Upgrade": "x"}
    secret = {"Authorization": "Bearer k", "Cookie": "c", "X-Api-Key": "k", "X-Forwarded-For": "1.2.3.4"}
    hop = {"Connection": "close, X-Hop", "X-Hop": "1"}
    relay.send(Outgoing("POST", "/x", list((smuggled | secret | hop).items()), b"{}")).close()
    sent = {name.lower(): value for name, value in upstream.received[0].headers.items()}
    assert sent.keys() == {"host", "authorization", "content-length"}
    assert (sent["content-length"], sent["authorization"]) == ("2", f"Bearer {TOKEN}")
    assert sent["host"] == upstream.url.removeprefix("http://")


def test_the_answer_comes_back_as_it_is(upstream, relay):
    upstream.answer = lambda _, connection: connection.send_json(
        {"error": "slow"}, 429, x_trace_id="t", Retry_After="7", Set_Cookie="a=b", Keep_Alive="5"
    )
    status, headers, body = post(relay)
    assert (status, body) == (429, b'{"error": "slow"}')
    assert (headers["x-trace-id"], headers["Retry-After"]) == ("t", "7")
    assert headers["content-type"] == "application/json"
    assert not {"Set-Cookie", "Keep-Alive", "Server", "Date"} & headers.keys()


def test_it_follows_no_redirect(upstream, relay):
    upstream.answer = lambda _, connection: connection.send_bytes(b"", 307, Location="http://elsewhere/")
    assert post(relay)[0] == 307
    assert len(upstream.received) == 1


def test_it_keeps_the_prefix_of_the_base_address(upstream):
    Relay(f"{upstream.url}/v2/", TOKEN).send(Outgoing("GET", "/x?y")).close()
    assert upstream.received[0].target == "/v2/x?y"


def test_parts_of_a_stream_come_one_by_one(upstream, relay):
    def stream(_, connection):
        connection.begin_chunks(content_type="text/event-stream")
        connection.send_chunk(b"data: 1\n\n")
        read_first.recv(1)  # no second part before the first has been read
        connection.send_chunk(b"data: 2\n\n")
        connection.send_chunk(b"")

    has_read, read_first = socket.socketpair()
    upstream.answer = stream
    chunks = Relay(upstream.url, TOKEN).send(Outgoing("GET", "/x")).chunks()
    assert next(chunks) == b"data: 1\n\n"
    has_read.send(b"1")
    assert list(chunks) == [b"data: 2\n\n"]
    has_read.close()
    read_first.close()


def test_connections_are_used_again(upstream, relay):
    ports = []

    def note_port(_, connection):
        ports.append(connection.client_address)
        connection.send_json({})

    upstream.answer = note_port
    post(relay)
    post(relay)
    assert len(set(ports)) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:PORT", "http://nowhere.invalid", "https://127.0.0.1"])
def test_what_could_not_be_sent_is_not_taken(url):
    with pytest.raises(NotRelayed) as failed:
        post(Relay(url.replace("PORT", str(free_port())), TOKEN))
    assert failed.value.maybe_taken is False


def test_a_failed_handshake_is_not_taken(upstream):
    with pytest.raises(NotRelayed) as failed:
        post(Relay(upstream.url.replace("http:", "https:"), TOKEN, silent_for=2))
    assert failed.value.maybe_taken is False


@pytest.mark.parametrize("hangs", [True, False])
def test_what_was_sent_and_not_answered_may_be_taken(upstream, relay, hangs):
    upstream.answer = lambda _, connection: None if hangs else connection.cut()
    with pytest.raises(NotRelayed) as failed:
        post(relay)
    assert failed.value.maybe_taken is True
    assert len(upstream.received) == 1  # and it is not sent again


def test_an_answer_that_breaks_off_is_an_error(upstream, relay):
    def break_off(_, connection):
        connection.begin_chunks()
        connection.send_chunk(b"half")
        connection.cut()

    upstream.answer = break_off
    chunks = relay.send(Outgoing("POST", "/x", (), b"{}")).chunks()
    assert next(chunks) == b"half"
    with pytest.raises(NotRelayed) as failed:
        list(chunks)
    assert failed.value.maybe_taken is True


def answers(upstream: Scripted, raw: bytes) -> None:
    """Let upstream send these bytes, and close the connection."""

    def answer(_, connection):
        connection.wfile.write(raw)
        connection.close_connection = True

    upstream.answer = answer


@pytest.mark.parametrize("status", [101, 103])
def test_an_interim_status_is_no_answer(upstream, relay, status):
    answers(upstream, b"HTTP/1.1 %d Wait\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}" % status)
    with pytest.raises(NotRelayed, match=f"a status {status} instead of an answer") as raised:
        post(relay)
    assert raised.value.maybe_taken
    upstream.answer = lambda _, connection: connection.send_json({"next": True})
    assert post(relay)[2] == b'{"next": true}'


@pytest.mark.parametrize(
    ("head", "body", "length"),
    [
        ("Content-Length: 2", b"{}", "2"),
        ("Content-Length: 2\r\nContent-Length: 2", b"{}", "2"),
        ("Content-Length: two", b"{}", None),
        ("Content-Length: -2", b"{}", None),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n", None),
    ],
)
def test_the_length_comes_back_where_it_holds(upstream, relay, head, body, length):
    answers(upstream, f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + body)
    relayed = relay.send(Outgoing("POST", "/x", (), b"{}"))
    assert b"".join(relayed.chunks()) == b"{}"
    assert relayed.headers == ([] if length is None else [("Content-Length", length)])


def test_headers_that_no_server_would_send_stay_out(upstream, relay):
    answers(upstream, b"HTTP/1.1 200 OK\r\nX-Bad: a\x01b\r\nX(): c\r\nX-Good: caf\xe9\r\n\r\n{}")
    assert post(relay) == (200, {"X-Good": "caf\xe9"}, b"{}")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "Remote end closed connection without response"),
        (b"\x00\x01\r\n\r\n", "BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-A: 1\r\n" * 101, "got more than 100 headers"),
    ],
)
def test_a_lost_answer_is_told_in_words_and_not_as_python_code(upstream, relay, raw, said):
    answers(upstream, raw)
    with pytest.raises(NotRelayed) as raised:
        post(relay)
    assert str(raised.value) == said
