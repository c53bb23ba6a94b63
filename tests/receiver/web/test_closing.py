import socket
import threading

from receiver.web import closing
from receiver.web.closing import admit_no_more, until_all_are_accepted
from tests.processes import free_port


def test_who_has_connected_can_still_be_accepted_and_answered():
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()) as early:
        admit_no_more(listener)
        early.sendall(b"a callback")
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(100) == b"a callback"
            accepted.sendall(b"kept")
        assert early.recv(100) == b"kept"


def test_it_waits_until_all_are_accepted(monkeypatch):
    monkeypatch.setattr(closing, "_ACCEPT_AT_LEAST_SECONDS", 0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        early = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        waiting = threading.Thread(target=until_all_are_accepted, args=([listener],))
        waiting.start()
        for _ in early:
            waiting.join(0.1)
            assert waiting.is_alive()
            listener.accept()[0].close()
        waiting.join(2)
        assert not waiting.is_alive()
        for each in early:
            each.close()


def test_who_comes_later_is_dropped_and_reaches_the_next_server():
    address = ("127.0.0.1", free_port())
    connected = threading.Event()

    def connect() -> None:
        with socket.create_connection(address, timeout=20):
            connected.set()

    with socket.create_server(address) as listener:
        admit_no_more(listener)
        late = threading.Thread(target=connect)
        late.start()
        assert not connected.wait(0.3)
        listener.setblocking(False)
        try:
            listener.accept()
        except BlockingIOError:
            pass
        else:
            raise AssertionError("it was admitted")
    with socket.create_server(address) as following:
        following.accept()[0].close()
    late.join()
    assert connected.is_set()
