"""The start of the receiver's web process."""

import socket
import time

from receiver.web.__main__ import require_port
from tests.processes import free_port


def test_a_port_that_a_killed_masters_workers_still_hold_is_waited_for(make_settings, monkeypatch):
    port = free_port()
    held = socket.create_server(("127.0.0.1", port))
    monkeypatch.setattr(time, "sleep", lambda _: held.close())
    require_port(make_settings(PORT=port), [])
    assert held.fileno() == -1
