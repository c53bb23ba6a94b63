"""Looks up the addresses of names, each look-up within a time: getaddrinfo itself may hang for minutes."""

import socket
import threading
from concurrent.futures import Future
from typing import NamedTuple

from gevent import monkey

from receiver.native import NativeThreads

# Look-ups at once, in a thread each. A name server that hangs costs about 30 s a name, and there are at most
# 64 attempts at once of 15 s each: so many names cannot hang at once, and others always find a thread.
_MOST = 256


class Address(NamedTuple):
    """An address to connect to."""

    family: int
    ip: str
    sockaddr: tuple[str | int, ...]


class Names:
    """Looks names up. Those who ask for the same name at once share a look-up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[tuple[str, int], Future[list[Address]]] = {}
        self._native = NativeThreads(_MOST)

    def look_up(self, host: str, port: int, seconds: float) -> list[Address]:
        """Return a host's addresses, the best first. Raises OSError, TimeoutError when the time is up."""
        try:
            return _addresses(host, port, socket.AI_NUMERICHOST)
        except socket.gaierror:  # no address but a name
            pass
        try:
            return self._share(host, port).result(seconds)
        except TimeoutError:
            raise TimeoutError("the name server does not answer") from None

    def _share(self, host: str, port: int) -> "Future[list[Address]]":
        with self._lock:
            look_up = self._running.get((host, port))
            if look_up is None:
                if len(self._running) >= _MOST:
                    raise TimeoutError
                look_up = Future()
                # A daemon, so that a look-up that hangs does not keep the process from ending.
                threading.Thread(target=self._run, args=(host, port, look_up), daemon=True).start()
                # After the start, which fails when there are too many threads. The thread awaits the lock.
                self._running[host, port] = look_up
            return look_up

    def _run(self, host: str, port: int, look_up: "Future[list[Address]]") -> None:
        addresses, problem = [], None
        try:
            addresses = self._native.run(_addresses, host, port, 0)
        except Exception as caught:  # noqa: BLE001 - those who wait get it
            problem = caught
        with self._lock:
            del self._running[host, port]
        if problem is None:
            look_up.set_result(addresses)
        else:
            look_up.set_exception(problem)


def _addresses(host: str, port: int, flags: int) -> list[Address]:
    # gevent's own getaddrinfo would use threads that the whole process needs.
    getaddrinfo = monkey.get_original("socket", "getaddrinfo")
    found = getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [Address(family, str(sockaddr[0]), sockaddr) for family, _, _, _, sockaddr in found]
