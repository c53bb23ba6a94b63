"""Connections that join the head of an answer with its body. Over real sockets."""

import socket
from contextlib import closing

import gevent
import gevent.socket
import pytest

from receiver.web.joined import JoinedSends, joined

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"


@pytest.fixture
def ends():
    """Our end of a connection, which joins, and the client's."""
    ours, theirs = gevent.socket.socketpair()
    ours = joined(ours)
    with closing(ours), closing(theirs):
        theirs.settimeout(20)
        yield ours, theirs


def waiting(theirs) -> bytes:
    """Return what has come already."""
    try:
        return theirs._sock.recv(65536, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""


def test_the_head_waits_for_the_beginning_of_the_body_only(ends):
    ours, theirs = ends
    with ours.answering():
        ours.sendall(HEAD)
        assert waiting(theirs) == b""
        ours.sendall(b"ab")
        assert waiting(theirs) == HEAD + b"ab"
        ours.sendall(b"cd")
        assert waiting(theirs) == b"cd"


def test_a_head_without_a_body_is_sent_at_the_end_also_of_an_answer_that_fails(ends):
    ours, theirs = ends

    def fail():
        with ours.answering():
            ours.sendall(HEAD)
            raise StopIteration

    for _ in range(2):
        with pytest.raises(StopIteration):
            fail()
        assert waiting(theirs) == HEAD


def test_beside_answers_nothing_is_kept_back(ends):
    ours, theirs = ends
    ours.sendall(b"a")
    assert waiting(theirs) == b"a"
    with ours.answering():
        pass
    ours.sendall(HEAD)
    assert waiting(theirs) == HEAD


def test_a_file_comes_after_the_head(ends, tmp_path):
    ours, theirs = ends
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10_000)
    with ours.answering(), path.open("rb") as file:
        ours.sendall(HEAD)
        ours.sendfile(file)
    assert waiting(theirs) == HEAD + b"x" * 10_000


def test_what_is_sent_before_the_head_goes_at_once(ends):
    ours, theirs = ends
    with ours.answering():
        assert ours.send(b"HTTP/1.1 100 Continue\r\n\r\n") == 25
        assert waiting(theirs) == b"HTTP/1.1 100 Continue\r\n\r\n"
        ours.sendall(HEAD)
        assert waiting(theirs) == b""


@pytest.mark.parametrize("within", [None, 20])
def test_a_large_body_arrives_whole_though_its_client_reads_slowly(ends, within):
    ours, theirs = ends
    ours.settimeout(within)  # as streamed answers have it
    body = bytes(range(256)) * 40_000

    def answer():
        with ours.answering():
            ours.sendall(HEAD)
            ours.sendall(memoryview(body))
        ours.shutdown(socket.SHUT_WR)

    sending = gevent.spawn(answer)
    read = b"".join(iter(lambda: theirs.recv(10_000), b""))
    sending.get()
    assert read == HEAD + body


def test_a_client_that_is_gone_is_an_error(ends):
    ours, theirs = ends
    theirs.close()
    with pytest.raises(OSError, match="Broken pipe"), ours.answering():
        ours.sendall(HEAD)


def test_a_connection_with_tls_stays_as_it_is():
    class Tls(gevent.socket.socket):
        pass

    ours, theirs = gevent.socket.socketpair()
    with closing(theirs), closing(Tls(fileno=ours.detach())) as tls:
        assert joined(tls) is tls
        assert not isinstance(tls, JoinedSends)
