"""Lets a server stop without resetting connections that wait to be accepted.

A callback may be on its way through such a connection, and its sender does not repeat it. So before a server
stops, the kernel drops new attempts to connect. The workers accept those that have connected, and only then
close the socket. The system of a dropped sender tries again after a second, and reaches the next server.
"""

import contextlib
import ctypes
import functools
import socket
import struct
import sys
import time
from collections.abc import Sequence

from gunicorn.arbiter import Arbiter

# A master takes so long to notice a signal that all processes get at once, as on Heroku.
_ACCEPT_AT_LEAST_SECONDS = 0.2
_ACCEPT_AT_MOST_SECONDS = 8.0  # on an overloaded machine; a platform kills after 10 s at the earliest
_LOOK_EVERY_SECONDS = 0.02
_WAITING_AT = 24  # where Linux's TCP_INFO of a listening socket has how many wait to be accepted
_SO_ATTACH_FILTER = 26
# A packet filter in the kernel's own language: drop what has SYN without ACK in the flags of its TCP header.
_FILTER = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte of the flags
        (0x54, 0, 0, 0x12),  # keep ACK and SYN
        (0x15, 0, 1, 0x02),  # is it SYN alone?
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # take
    )
)


def admit_no_more(listener: socket.socket) -> None:
    """Drop attempts to connect to a listening socket, in all processes. Only Linux can do that."""
    if sys.platform != "linux" or listener.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    program = ctypes.create_string_buffer(_FILTER, len(_FILTER))
    described = struct.pack("HP", len(_FILTER) // 8, ctypes.addressof(program))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)


def until_all_are_accepted(listeners: Sequence[socket.socket]) -> None:
    """Wait until nobody waits to be accepted, for some seconds at most. Meanwhile other greenlets accept."""
    began = time.monotonic()
    time.sleep(_ACCEPT_AT_LEAST_SECONDS)
    while any(map(_waiting, listeners)) and time.monotonic() - began < _ACCEPT_AT_MOST_SECONDS:
        time.sleep(_LOOK_EVERY_SECONDS)


def _waiting(listener: socket.socket) -> int:
    if sys.platform != "linux" or listener.family not in {socket.AF_INET, socket.AF_INET6}:
        return 0
    information = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _WAITING_AT + 4)
    return int(struct.unpack_from("I", information, _WAITING_AT)[0])


def _is_shared(server: Arbiter) -> bool:
    """Tell whether the listening sockets outlive the master: an upgrade's (SIGUSR2), or systemd's."""
    return bool(server.systemd or server.reexec_pid or server.master_pid)


def admit_no_more_at_stop(server: Arbiter) -> None:
    """Let the master admit no more before it tells its workers to end. gunicorn has no hook there.

    A socket that others go on to listen on stays as it is: who had it next would hear nobody.
    """
    stop = server.stop

    @functools.wraps(stop)
    def stop_gently(graceful: bool = True) -> None:
        if not _is_shared(server):
            for listener in server.LISTENERS:
                admit_no_more(listener.sock)
        stop(graceful)

    server.stop = stop_gently
