import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from receiver.web import closing
from receiver.web.closing import admit_no_more, until_all_are_accepted
from tests.processes import REPOSITORY, Backstop, free_port, wait_until


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
        waiting.join(60)
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


class TestSocketThatOthersGoOnToListenOn:
    """The real server. Who has the socket next must not be deaf."""

    @pytest.fixture
    def backstop(self, tmp_path):
        with Backstop(tmp_path, "http://127.0.0.1:9", WEB_CONCURRENCY=1) as backstop:
            yield backstop

    def is_heard(self, backstop):
        return backstop.request("GET", "/healthz").status == 200

    def test_an_upgrade_in_place(self, backstop):
        # By its script: started with -m it cannot be upgraded in place.
        script = Path(sys.executable).with_name("gunicorn")
        old = backstop.start("web", str(script), "-c", f"{REPOSITORY}/gunicorn.conf.py", "wsgi:app")
        wait_until(lambda: "Booting worker" in backstop.log("web"))
        old.send_signal(signal.SIGUSR2)
        wait_until(lambda: backstop.log("web").count("Booting worker") == 2)
        assert backstop.stop(old) == 0
        new = int(re.findall(r"Listening at: .* \((\d+)\)", backstop.log("web"))[-1])
        try:
            assert new != old.pid
            backstop._http.clear()
            assert self.is_heard(backstop)
        finally:
            os.kill(new, signal.SIGTERM)
            wait_until(lambda: not os.path.exists(f"/proc/{new}"))

    def test_a_socket_of_systemd(self, backstop):
        with socket.create_server(("127.0.0.1", backstop.port)) as listener:
            for _ in range(2):
                server = self.start_as_systemd(backstop, listener)
                assert wait_until(lambda: self.is_heard(backstop))
                server.send_signal(signal.SIGTERM)
                assert server.wait(30) == 0
                backstop._http.clear()

    def start_as_systemd(self, backstop, listener):
        def inherit() -> None:
            os.dup2(listener.fileno(), 3)
            os.set_inheritable(3, True)

        told = "LISTEN_PID=$$ LISTEN_FDS=1"
        server = f"{sys.executable} -m gunicorn -c {REPOSITORY}/gunicorn.conf.py wsgi:app"
        process = subprocess.Popen(
            ["sh", "-c", f"{told} exec {server}"],
            cwd=backstop.directory,
            env=backstop._environ(),
            preexec_fn=inherit,
            pass_fds=(3,),
        )
        backstop.processes.append(process)  # which stops it, whatever happens
        return process
