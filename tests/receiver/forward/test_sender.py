"""The sender against real servers, good and bad ones."""

import contextlib
import errno
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from receiver.clock import utcnow
from receiver.forward import names as names_module
from receiver.forward import sender as sender_module
from receiver.forward.sender import Outcome, Request, Sender
from receiver.forward.signing import sign
from receiver.version import VERSION
from tests.processes import free_port, wait_until
from tests.sink import Sink, drip, hang, reply, reset, say

SECRET = "s3cret"
SHORT = 0.6  # seconds for an attempt, where the test waits for its end
A_BUSY_MACHINE = 30.0  # seconds that it may add

Resolver = Callable[..., list[Any]]


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture
def make_sender() -> Iterator[Callable[..., Sender]]:
    with contextlib.ExitStack() as senders:

        def make(allow_private_urls: bool = True, connections: int = 4) -> Sender:
            return senders.enter_context(contextlib.closing(Sender(allow_private_urls, connections)))

        yield make


@pytest.fixture
def sender(make_sender: Callable[..., Sender]) -> Sender:
    return make_sender()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "ATTEMPT_WITHIN_SECONDS", SHORT)


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Resolver], list[str]]:
    """Takes what answers look-ups of names from now on; returns the names that are asked for."""
    real = socket.getaddrinfo
    asked: list[str] = []

    def install(resolver: Resolver) -> list[str]:
        def getaddrinfo(host: str, port: int, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0):
            if flags & socket.AI_NUMERICHOST:
                return real(host, port, family, type, proto, flags)
            asked.append(host)
            return resolver(host, port)

        monkeypatch.setattr(names_module.monkey, "get_original", lambda module, name: getaddrinfo)
        return asked

    return install


def to(*ips: str) -> Resolver:
    return lambda host, port: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ips]


def request(url: str, body: bytes = b"{}", **headers: str) -> Request:
    return Request(url, {"Content-Type": "application/json"} | headers, body, may_be_private=False)


def test_it_posts_the_body_with_the_headers(sink: Sink, sender: Sender):
    headers = sign(["whsec_" + "c2VjcmV0" * 4], "msg_1", utcnow(), b'{"a": 1}')
    sink.then(reply(201, b"thank you"))
    outcome = sender.send(request(f"{sink.url}/hooks?a=b c#d", b'{"a": 1}', **headers))
    assert (outcome.status, outcome.answer, outcome.error) == (201, b"thank you", None)
    assert (outcome.kind, outcome.retry_after) == ("delivered", None)
    assert timedelta(0) < outcome.took < timedelta(seconds=15)
    (received,) = sink.received
    assert (received.line, received.body) == ("POST /hooks?a=b%20c HTTP/1.1", b'{"a": 1}')
    assert received.headers == headers | {
        "host": f"127.0.0.1:{sink.port}",
        "user-agent": f"Backstop/{VERSION}",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": "8",
    }


def test_it_gives_the_password_in_the_url_to_the_server(sink: Sink, sender: Sender):
    sender.send(request(sink.url.replace("//", "//user:p%40ss@")))
    assert sink.received[0].headers["authorization"] == "Basic dXNlcjpwQHNz"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, "delivered"),
        (204, "delivered"),
        (299, "delivered"),
        (304, "refused"),
        (400, "refused"),
        (401, "refused"),
        (404, "refused"),
        (410, "gone"),
        (429, "throttled"),
        (500, "refused"),
        (502, "refused"),
        (503, "throttled"),
    ],
)
def test_the_status_decides(sink: Sink, sender: Sender, status: int, kind: str):
    sink.then(reply(status))
    outcome = sender.send(request(sink.url))
    assert (outcome.status, outcome.kind, outcome.error, outcome.retry_after) == (status, kind, None, None)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "low", "high"),
    [("7", 7, 7), ("0", 0, 0), ("Fri, 31 Dec 2100 23:59:59 GMT", 86400, 10**10)],
)
def test_it_reads_how_long_to_wait(sink: Sink, sender: Sender, status, header, low, high):
    sink.then(reply(status, Retry_After=header))
    waited = sender.send(request(sink.url)).retry_after
    assert timedelta(seconds=low) <= waited <= timedelta(seconds=high)


@pytest.mark.parametrize(("status", "header"), [(503, "soon"), (500, "7"), (200, "7")])
def test_a_wait_that_says_nothing_is_none(sink: Sink, sender: Sender, status: int, header: str):
    sink.then(reply(status, Retry_After=header))
    assert sender.send(request(sink.url)).retry_after is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_it_follows_no_redirect(sink: Sink, sender: Sender, status: int):
    with Sink() as elsewhere:
        sink.then(reply(status, Location=elsewhere.url))
        outcome = sender.send(request(sink.url))
        assert (outcome.status, outcome.kind) == (status, "refused")
        assert elsewhere.connections == 0


def test_it_uses_no_proxy(sink: Sink, make_sender, monkeypatch: pytest.MonkeyPatch):
    with Sink() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert make_sender().send(request(sink.url)).kind == "delivered"
        assert proxy.connections == 0


def test_an_attempt_has_15_seconds_and_5_of_them_to_connect():
    assert (sender_module.ATTEMPT_WITHIN_SECONDS, sender_module.CONNECT_WITHIN_SECONDS) == (15, 5)


HEAD = b"HTTP/1.1 200 OK\r\n"
SLOW = {
    "nothing": hang(),
    "half a status": hang(b"HTTP/1.1 2"),
    "half a head": hang(HEAD + b"Content-"),
    "a dripping status": drip(b"HTTP/1.1 200 ", b"O"),
    "a dripping head": drip(HEAD + b"A: ", b"b"),
    "dripping headers": drip(HEAD, b"A: b\r\n"),
    "promises without end": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a flood of promises": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, every=0),
}
SLOW_BODIES = {
    "no body": hang(HEAD + b"Content-Length: 10\r\n\r\n"),
    "half a body": hang(HEAD + b"Content-Length: 10\r\n\r\nxxxxx"),
    "a dripping body": drip(HEAD + b"Content-Length: 1000\r\n\r\n", b"x"),
    "a dripping body without a length": drip(HEAD + b"\r\n", b"x"),
    "dripping chunks": drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "a flood of trailers": drip(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n" * 1000, every=0
    ),
    "a chunk's length without end": drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
}


def is_in_time(outcome: Outcome) -> bool:
    return timedelta(seconds=SHORT) <= outcome.took <= timedelta(seconds=SHORT + A_BUSY_MACHINE)


@pytest.mark.parametrize("act", SLOW.values(), ids=SLOW)
def test_a_server_without_a_whole_head_is_left_in_time(sink: Sink, sender: Sender, short, act):
    sink.then(act)
    outcome = sender.send(request(sink.url))
    assert (outcome.status, outcome.kind, outcome.error) == (None, "timeout", "no whole answer in time")
    assert is_in_time(outcome)


@pytest.mark.parametrize("act", SLOW_BODIES.values(), ids=SLOW_BODIES)
def test_a_status_counts_even_if_the_body_never_ends(sink: Sink, sender: Sender, short, act):
    sink.then(act)
    outcome = sender.send(request(sink.url))
    assert (outcome.status, outcome.kind, outcome.error) == (200, "delivered", "no whole answer in time")
    assert is_in_time(outcome)
    assert sender.send(request(sink.url)).error is None
    assert sink.connections == 2  # the rest of the first answer is not taken for the second


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server that accepts nothing by itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/"


def test_a_server_that_takes_nothing_is_left_in_time(listener: socket.socket, sender: Sender, short):
    outcome = sender.send(request(url_of(listener), b"x" * 2**25))
    assert (outcome.status, outcome.kind) == (None, "timeout")
    assert is_in_time(outcome)


@pytest.mark.parametrize("beginning", [b"", b"\x16\x03\x03\x40\x00"], ids=["silent", "dripping"])
def test_a_handshake_that_never_ends_is_left_in_time(listener, sender: Sender, short, beginning: bytes):
    done = threading.Event()

    def drip_a_record() -> None:
        connection, _ = listener.accept()
        with contextlib.suppress(OSError), connection:
            connection.sendall(beginning)
            while not done.wait(0.02):
                connection.sendall(b"\0" if beginning else b"")

    thread = threading.Thread(target=drip_a_record)
    thread.start()
    outcome = sender.send(request(url_of(listener, "https")))
    done.set()
    thread.join()
    assert (outcome.status, outcome.kind) == (None, "timeout")
    assert is_in_time(outcome)


def test_connecting_has_a_shorter_time_of_its_own(sender: Sender, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sender_module, "CONNECT_WITHIN_SECONDS", SHORT)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with contextlib.ExitStack() as stack:  # fill its backlog: Linux drops what comes then
            for _ in range(2):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            outcome = sender.send(request(url_of(full)))
    assert (outcome.kind, outcome.error) == ("timeout", "no connection in time")
    assert is_in_time(outcome)


def test_it_reads_the_first_kilobyte_of_an_answer_without_end(sink: Sink, sender: Sender):
    sink.then(drip(HEAD + b"\r\n", b"x" * 2**16, every=0))
    outcome = sender.send(request(sink.url))
    assert (outcome.kind, outcome.answer, outcome.error) == ("delivered", b"x" * 1024, None)
    assert outcome.took < timedelta(seconds=A_BUSY_MACHINE)


def test_a_bomb_is_kept_as_it_came(sink: Sink, sender: Sender):
    sink.then(reply(200, b"\x1f\x8b" + b"\0" * 500, Content_Encoding="gzip"))
    assert sender.send(request(sink.url)).answer == b"\x1f\x8b" + b"\0" * 500


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (say(b""), "the connection was closed before the answer ended"),
        (reset(), os.strerror(errno.ECONNRESET)),
        (reset(b"HTTP/1.1 2"), os.strerror(errno.ECONNRESET)),
        (say(b"SSH-2.0-OpenSSH\r\n"), "the answer is not HTTP"),
        (say(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200), "the answer is not HTTP"),
        (say(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 2**17), "the answer is not HTTP"),
    ],
)
def test_a_connection_that_fails_is_told(sink: Sink, sender: Sender, act, error: str):
    sink.then(act)
    outcome = sender.send(request(sink.url))
    assert (outcome.status, outcome.kind, outcome.error) == (None, "network", error)
    assert len(sink.received) == 1  # on a new connection nothing is sent twice


def test_nobody_listening_is_told(sender: Sender):
    outcome = sender.send(request(f"http://127.0.0.1:{free_port()}/"))
    assert (outcome.kind, outcome.error) == ("network", os.strerror(errno.ECONNREFUSED))


def test_an_answer_before_the_whole_request_was_read_is_an_answer(listener, sender: Sender):
    def refuse() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=refuse)
    thread.start()
    outcome = sender.send(request(url_of(listener), b"x" * 2**25))
    thread.join()
    assert (outcome.status, outcome.kind) == (413, "refused")


# Connections that are kept


def test_a_connection_is_used_again(sink: Sink, sender: Sender):
    for act in (reply(), reply(500, b"x" * 1000), say_chunks(b"a", b"b"), reply(204)):
        sink.then(act)
        assert sender.send(request(sink.url)).error is None
    assert sink.connections == 1


def say_chunks(*chunks: bytes):
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    raw = say(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body)

    def act(sink: Sink, connection: socket.socket) -> bool:
        raw(sink, connection)
        return True

    return act


def test_a_connection_that_was_closed_meanwhile_is_replaced(sink: Sink, sender: Sender):
    assert sender.send(request(sink.url)).kind == "delivered"
    sink.close_connections()
    assert sender.send(request(sink.url)).kind == "delivered"
    assert (sink.connections, len(sink.received)) == (2, 2)


@pytest.mark.parametrize("act", [say(b""), reset()], ids=["closed", "reset"])
def test_a_connection_that_is_closed_in_the_same_moment_is_replaced_once(sink: Sink, sender: Sender, act):
    sink.then(reply(), act, reply())
    assert sender.send(request(sink.url)).kind == "delivered"
    assert sender.send(request(sink.url)).kind == "delivered"
    assert [one.connection for one in sink.received] == [1, 1, 2]
    sink.then(act, act, reply())
    assert sender.send(request(sink.url)).kind == "network"
    assert len(sink.received) == 5


@pytest.mark.parametrize("act", [say(b"HTTP/1.1 2"), reset(b"HTTP/1.1 2")], ids=["closed", "reset"])
def test_nothing_is_sent_twice_once_the_server_has_begun_to_answer(sink: Sink, sender: Sender, act):
    sink.then(reply(), act)
    assert sender.send(request(sink.url)).kind == "delivered"
    assert sender.send(request(sink.url)).kind == "network"
    assert len(sink.received) == 2


def test_a_replaced_connection_gets_no_more_time(sink: Sink, sender: Sender, short):
    sink.then(reply(), say(b""), hang())
    sender.send(request(sink.url))
    outcome = sender.send(request(sink.url))
    assert outcome.kind == "timeout"
    assert is_in_time(outcome)


def test_a_server_that_says_more_than_it_was_asked_is_not_listened_to(sink: Sink, sender: Sender):
    answered, said_more = threading.Event(), threading.Event()

    def answer_twice(sink: Sink, connection: socket.socket) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        answered.wait()
        connection.sendall(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")
        said_more.set()
        return True

    sink.then(answer_twice)
    assert sender.send(request(sink.url)).status == 200
    answered.set()
    said_more.wait()
    assert sender.send(request(sink.url)).status == 200


def test_the_rest_of_a_long_answer_is_not_taken_for_the_next_one(sink: Sink, sender: Sender):
    sink.then(reply(500, b"x" * 3000), say_chunks(b"x" * 3000))
    outcomes = [sender.send(request(sink.url)) for _ in range(3)]
    assert [(one.status, len(one.answer)) for one in outcomes] == [(500, 1024), (200, 1024), (200, 0)]
    assert len(sink.received) == 3


def test_only_so_many_connections_are_kept(make_sender):
    sender = make_sender(connections=2)
    with contextlib.ExitStack() as stack:
        sinks = [stack.enter_context(Sink()) for _ in range(3)]
        for _ in range(2):
            for one in sinks:
                assert sender.send(request(one.url)).kind == "delivered"
        assert [one.connections for one in sinks] == [2, 2, 2]  # each was the oldest of three
        sender.send(request(sinks[2].url))
        assert sinks[2].connections == 2


def test_a_connection_that_is_in_use_at_the_end_is_closed_after_it(listener, sender: Sender):
    with ThreadPoolExecutor(1) as threads:
        outcome = threads.submit(sender.send, request(url_of(listener)))
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(A_BUSY_MACHINE)
            connection.recv(2**16)
            sender.close()
            connection.sendall(HEAD + b"Content-Length: 0\r\n\r\n")
            assert connection.recv(1) == b""
        assert outcome.result().kind == "delivered"


def test_many_threads_share_a_sender(sink: Sink, sender: Sender):
    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(lambda n: sender.send(request(sink.url, b"%d" % n)), range(200)))
    assert {outcome.kind for outcome in outcomes} == {"delivered"}
    assert sorted(int(one.body) for one in sink.received) == list(range(200))


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for `localhost` that nobody has signed, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    made += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        [*made, "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def tls_sink(certificate: tuple[Path, Path]) -> Iterator[Sink]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with Sink(tls=context) as sink:
        yield sink


def test_it_believes_the_certificates_that_the_machine_believes(
    tls_sink, certificate, make_sender, resolve, monkeypatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    sender = make_sender()
    for _ in range(2):
        assert sender.send(request(tls_sink.url)).kind == "delivered"
    assert tls_sink.connections == 1
    resolve(to("127.0.0.1"))
    assert sender.send(request(tls_sink.url.replace("localhost", "LOCALHOST."))).kind == "delivered"
    assert tls_sink.connections == 2
    outcome = sender.send(request(tls_sink.url.replace("localhost", "127.0.0.1")))
    assert "the certificate is not valid: IP address mismatch" in outcome.error
    assert len(tls_sink.received) == 3


def test_a_tls_server_that_says_more_is_not_listened_to(tls_sink, certificate, make_sender, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    more = b"\r\n" * 6000 + b"HTTP/1.1 410 Gone\r\n\r\n"  # in one record, but more than is read at once

    def act(sink: Sink, connection: socket.socket) -> bool:
        connection.sendall(HEAD + b"Content-Length: 0\r\n\r\n" + more)
        return True

    tls_sink.then(act)
    sender = make_sender()
    assert [sender.send(request(tls_sink.url)).status for _ in range(2)] == [200, 200]


def test_a_tls_server_that_drips_is_left_in_time(tls_sink, certificate, make_sender, monkeypatch, short):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    tls_sink.then(drip(HEAD, b"A: b\r\n"))
    outcome = make_sender().send(request(tls_sink.url))
    assert outcome.kind == "timeout"
    assert is_in_time(outcome)


def test_it_tells_a_bad_certificate_nothing(tls_sink: Sink, sender: Sender):
    outcome = sender.send(request(tls_sink.url))
    assert (outcome.status, outcome.kind) == (None, "network")
    assert outcome.error == "the certificate is not valid: self-signed certificate"
    assert tls_sink.received == []


def test_a_server_without_tls_is_told(sink: Sink, sender: Sender, listener: socket.socket):
    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(2000)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    outcome = sender.send(request(url_of(listener, "https")))
    thread.join()
    assert outcome.kind == "network"
    assert outcome.error.startswith("TLS failed: ")


# Names


@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_AGAIN])
def test_a_name_that_cannot_be_looked_up_is_told(sender: Sender, resolve, code: int):
    def fail(host: str, port: int) -> list[Any]:
        raise socket.gaierror(code, "Name or service not known")

    resolve(fail)
    outcome = sender.send(request("http://app.example/"))
    told = (None, "network", "the name cannot be looked up: Name or service not known")
    assert (outcome.status, outcome.kind, outcome.error) == told


@pytest.fixture
def held_back() -> Iterator[tuple[Callable[[], Any], Callable[[], Any]]]:
    """A function that hangs, and another that ends this. They work in native threads beside greenlets too."""
    reading, writing = os.pipe()
    yield lambda: os.read(reading, 1), lambda: os.close(writing)
    os.close(reading)


def test_names_that_hang_are_left_in_time_and_do_not_stop_others(sender, resolve, held_back, short, sink):
    wait, release = held_back

    def resolver(host: str, port: int) -> list[Any]:
        if host == "hangs.example":
            wait()
        return to("127.0.0.1")(host, port)

    asked = resolve(resolver)
    with ThreadPoolExecutor(20) as threads:
        hanging = [threads.submit(sender.send, request("http://hangs.example/")) for _ in range(20)]
        wait_until(lambda: asked)
        outcome = sender.send(request(f"http://works.example:{sink.port}/"))
        assert outcome.kind == "delivered"
        outcomes = [one.result() for one in hanging]
    assert {(one.kind, one.error) for one in outcomes} == {("timeout", "the name server does not answer")}
    assert all(is_in_time(one) for one in outcomes)
    assert asked.count("hangs.example") == 1
    release()
    wait_until(lambda: sender.send(request(f"http://hangs.example:{sink.port}/")).kind == "delivered")


def test_names_that_hang_use_so_many_threads_and_no_more(sender, resolve, held_back, short, monkeypatch):
    monkeypatch.setattr(names_module, "_MOST", 2)
    wait, release = held_back
    asked = resolve(lambda host, port: [wait()])
    with ThreadPoolExecutor(2) as threads:
        hanging = [threads.submit(sender.send, request(f"http://{n}.example/")) for n in range(2)]
        wait_until(lambda: len(asked) == 2)
        assert sender.send(request("http://third.example/")).kind == "timeout"
        assert {one.result().kind for one in hanging} == {"timeout"}
    release()
    assert len(asked) == 2


def test_a_thread_that_cannot_be_started_costs_one_look_up_and_no_later_one(
    sender, resolve, short, sink, monkeypatch
):
    resolve(to("127.0.0.1"))
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", mock.Mock(side_effect=RuntimeError("can't start new thread")))
        with pytest.raises(RuntimeError):
            sender.send(request(f"http://app.example:{sink.port}/"))
    assert sender.send(request(f"http://app.example:{sink.port}/")).kind == "delivered"


def test_a_further_address_is_tried(sender: Sender, resolve, sink: Sink):
    unknown = (99, socket.SOCK_STREAM, 6, "", ("::1", sink.port))  # as IPv6 on a machine without it
    resolve(lambda host, port: [unknown, *to("127.0.0.2", "127.0.0.1")(host, port)])
    assert sender.send(request(f"http://app.example:{sink.port}/")).kind == "delivered"


# Addresses that may not be connected to

ELSEWHERE = "127.0.0.2"


@pytest.fixture
def anywhere() -> Iterator[socket.socket]:
    """A server on all addresses of this machine."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        listener.setblocking(False)
        yield listener


def connections_to(listener: socket.socket) -> int:
    number = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            number += 1
    return number


# Letters and digits that name servers' rules (IDNA) take for those of ASCII.
WIDE = str.maketrans("127.0abc", "\uff11\uff12\uff17\u3002\uff10\uff41\uff42\uff43")
SPELLINGS = [
    *(f"http://{host}:PORT/" for host in ("127.0.0.1", "127.1", "127.0.1", "127.127.127.127", "0x7f.1")),
    *(f"http://{host}:PORT/" for host in ("0x7f000001", "0X7F.0.0.0X1", "0177.0.0.1", "017700000001")),
    *(f"http://{host}:PORT/" for host in ("2130706433", "0177.0x0.1", "00000177.1", "0", "0.0.0.0", "0x0")),
    *(f"http://{host}:PORT/" for host in ("localhost", "LOCALHOST", "localhost.", "127.0.0.1.", "000.0.0")),
    *(
        f"http://[{host}]:PORT/"
        for host in ("::1", "::", "0:0:0:0:0:0:0:1", "0000::0001", "::ffff:127.0.0.1")
    ),
    *(f"http://[{host}]:PORT/" for host in ("::ffff:7f00:1", "::FFFF:7F00:0001", "0:0:0:0:0:ffff:127.0.0.1")),
    *(f"http://[{host}]:PORT/" for host in ("::ffff:0.0.0.0", "::127.0.0.1", "::ffff:0:127.0.0.1")),
    *(f"http://[{host}]:PORT/" for host in ("64:ff9b::127.0.0.1", "2002:7f00:1::", "::1%lo", "fe80::1%lo")),
    *(f"http://{user}@127.0.0.1:PORT/" for user in ("user", "8.8.8.8", "8.8.8.8:80", "8.8.8.8\\", "[::2]")),
    *(f"http://127.0.0.1:PORT{path}" for path in ("?@8.8.8.8/", "#@8.8.8.8/", "/@8.8.8.8")),
    *("HTTP://127.0.0.1:PORT/", " http://127.0.0.1:PORT/", "http://loc\talhost:PORT/"),
    *(f"http://{host.translate(WIDE)}:PORT/" for host in ("127.0.0.1", "localhost", "0")),
    *("http:127.0.0.1:PORT/", "http:///127.0.0.1:PORT/", "http:\\\\127.0.0.1:PORT/", "//127.0.0.1:PORT/"),
    *("gopher://127.0.0.1:PORT/", "file://127.0.0.1:PORT/", "127.0.0.1:PORT", "unix:///run/x.sock"),
    *("http://127.0.0.1%00.example.invalid:PORT/", "http://%31%32%37.0.0.1:PORT/"),
    *("http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://100.100.100.200/"),
]


@pytest.mark.parametrize("url", SPELLINGS)
def test_the_url_of_a_task_leads_to_no_private_address_in_any_spelling(anywhere, make_sender, url: str):
    sender = make_sender(allow_private_urls=False)
    outcome = sender.send(request(url.replace("PORT", str(anywhere.getsockname()[1]))))
    assert outcome.status is None
    assert outcome.kind in {"forbidden", "network"}
    assert connections_to(anywhere) == 0


def test_most_of_these_spellings_would_lead_there(anywhere: socket.socket, sender: Sender, short):
    urls = [url.replace("PORT", str(anywhere.getsockname()[1])) for url in SPELLINGS if "PORT" in url]
    with ThreadPoolExecutor(8) as threads:
        errors = list(threads.map(lambda url: sender.send(request(url)).error, urls))
    assert errors.count("no whole answer in time") == connections_to(anywhere) >= 30
    assert len(SPELLINGS) > 40


def test_an_address_of_the_operator_may_be_private(sink: Sink, make_sender):
    sender = make_sender(allow_private_urls=False)
    named = Request(sink.url, {}, b"{}", may_be_private=True)
    assert sender.send(named).kind == "delivered"
    # Its connection is still open, but it serves nobody else.
    outcome = sender.send(request(sink.url))
    assert (outcome.kind, outcome.status) == ("forbidden", None)
    assert outcome.error == "the URL leads to 127.0.0.1, which is not a public address"
    assert sender.send(named).kind == "delivered"
    assert (sink.connections, len(sink.received)) == (1, 2)


@pytest.fixture
def elsewhere_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "is_public", lambda ip: ip == ELSEWHERE)


def test_a_resolver_that_rebinds_gets_no_connection(sink: Sink, resolve, make_sender, elsewhere_is_public):
    answers = iter([ELSEWHERE, "127.0.0.1"] * 10)
    asked = resolve(lambda host, port: to(next(answers))(host, port))
    sender = make_sender(allow_private_urls=False)
    url = f"http://rebinds.example:{sink.port}/"
    kinds = [sender.send(request(url)).kind for _ in range(20)]
    assert kinds == ["network", "forbidden"] * 10  # nobody listens elsewhere
    assert len(asked) == 20  # a look-up an attempt
    assert sink.connections == 0


def test_of_several_addresses_the_public_ones_are_connected_to(
    sink: Sink, resolve, make_sender, elsewhere_is_public
):
    resolve(to("127.0.0.1", ELSEWHERE, "10.0.0.1"))
    sender = make_sender(allow_private_urls=False)
    outcome = sender.send(request(f"http://mixed.example:{sink.port}/"))
    assert (outcome.kind, outcome.error) == ("network", os.strerror(errno.ECONNREFUSED))
    assert sink.connections == 0


# Secrets


@pytest.mark.parametrize(
    "act",
    [
        say(f"{SECRET} HTTP\r\n".encode()),
        say(f"HTTP/1.1 {SECRET}\r\n\r\n".encode()),
        say(f"HTTP/9 200 {SECRET}\r\n\r\n".encode()),
        say(HEAD + f"Transfer-Encoding: chunked\r\n\r\n{SECRET}\r\n".encode()),
        reset(),
        hang(),
    ],
)
def test_errors_hold_no_secret(sink: Sink, sender: Sender, short, act):
    sink.then(act)
    address = f"{SECRET}:{SECRET}@127.0.0.1:{sink.port}/{SECRET}?token={SECRET}#{SECRET}"
    outcome = sender.send(request(f"http://{address}"))
    assert outcome.error
    assert SECRET not in outcome.error


@pytest.mark.parametrize(
    "url",
    [
        f"http://{SECRET}:{SECRET}@[::1/",
        f"http://user:{SECRET}@x:port/",
        f"ftp://user:{SECRET}@x/",
        f"http://user:{SECRET}@/",
        f"http://user:{SECRET}@a..b/",
        f"http://user:{SECRET}@a\0b/",
        f"http://user:{SECRET}@{'a' * 64}.example/",
        f"http://user:{SECRET}@x:99999/",
        f"/callbacks/{SECRET}",
        "",
    ],
)
def test_what_is_no_address_is_told_without_it(sender: Sender, url: str):
    outcome = sender.send(request(url))
    assert outcome.kind == "network"
    assert outcome.error.startswith("the URL is not ")
    assert SECRET not in outcome.error


def test_the_repr_of_a_request_holds_no_secret():
    assert SECRET not in repr(request(f"http://x.example/?token={SECRET}", SECRET.encode(), A=SECRET))


@pytest.mark.parametrize("value", ["a\r\nX-Evil: b", "a\nb", "a\0b"])
def test_a_header_stays_a_header(sink: Sink, sender: Sender, value: str):
    outcome = sender.send(request(sink.url, b"", **{"X-Ref": value}))
    assert (outcome.kind, outcome.error) == ("network", "a header has several lines")
    assert sink.received == []
