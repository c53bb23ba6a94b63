"""A connection to a server, plain or TLS. Each step on it ends by the deadline.

A time-out of a socket bounds one step only: a server that sends a byte now and then would hold it for ever.
So the socket never blocks, and each wait ends by the deadline. This holds for greenlets too.
"""

import io
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from urllib3.util import wait_for_read, wait_for_write

from receiver.forward.names import Address

_Answer = TypeVar("_Answer")
_MOST_ADDRESSES = 4


class Wire:
    """A connected socket. `deadline` is a time of the monotonic clock, and may be moved."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        connected.setblocking(False)
        self.deadline = deadline
        self.has_heard = False  # since `sendall` was called
        self._socket = connected

    def start_tls(self, context: ssl.SSLContext, name: str) -> None:
        """Shake hands with a server that proves to be `name`."""
        tls = context.wrap_socket(self._socket, server_hostname=name, do_handshake_on_connect=False)
        self._socket = tls
        self._by_deadline(tls.do_handshake, wait_for_read)

    def sendall(self, data: bytes) -> None:
        """Send everything."""
        self.has_heard = False
        rest = memoryview(data)
        while rest:
            rest = rest[self._by_deadline(lambda: self._socket.send(rest), wait_for_write) :]  # noqa: B023

    def recv_into(self, buffer: Any) -> int:
        """Receive some bytes and return how many; 0 when the server has closed the connection."""
        size = self._by_deadline(lambda: self._socket.recv_into(buffer), wait_for_read)
        self.has_heard = self.has_heard or size > 0
        return size

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a reader, as http.client wants it. To close it does not close the connection."""
        return io.BufferedReader(_Reader(self))

    def is_silent(self) -> bool:
        """Tell whether nothing has come, not even the end."""
        has_decrypted = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()
        return not has_decrypted and not wait_for_read(self._socket, timeout=0)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _by_deadline(
        self, step: Callable[[], _Answer], wait_for_more: Callable[[socket.socket, float], object]
    ) -> _Answer:
        # Look at the clock before each step too: a server that floods never lets us wait.
        while time.monotonic() < self.deadline:
            wait = wait_for_more
            try:
                return step()
            except BlockingIOError:
                pass
            except ssl.SSLWantReadError:
                wait = wait_for_read
            except ssl.SSLWantWriteError:
                wait = wait_for_write
            wait(self._socket, max(self.deadline - time.monotonic(), 0))
        raise TimeoutError("no whole answer in time")


class _Reader(io.RawIOBase):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._wire.recv_into(buffer)


def connect(addresses: Sequence[Address], seconds: float) -> socket.socket:
    """Return a connection to the first address that answers. Each gets its share of the time.

    Raises the last address's OSError, or TimeoutError.
    """
    problem = OSError("the name has no address")
    until = time.monotonic() + seconds
    tried = addresses[:_MOST_ADDRESSES]
    for position, address in enumerate(tried):
        share = (until - time.monotonic()) / (len(tried) - position)
        try:
            return _connect_to(address, max(share, 0.001))
        except TimeoutError:
            problem = TimeoutError("no connection in time")
        except OSError as caught:
            problem = caught
    raise problem


def _connect_to(address: Address, seconds: float) -> socket.socket:
    connection = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        connection.settimeout(seconds)
        connection.connect(address.sockaddr)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connection.close()
        raise
    return connection
