"""Do callbacks go on while a hundred clients stall in the middle of a body?"""

import select
import socket
import threading
import time
from contextlib import suppress
from typing import Any, Self

from bench.contenders import SQLITE
from bench.figures import Row, median, number, pick, table
from bench.processes import CALLBACK_PATH
from bench.targets import P99, REQUESTS, stalls_ratio
from bench.workbench import Workbench

_CLIENTS = 100
_CONNECTIONS = 16
_RECOVER_SECONDS = 1
_BACK_AFTER_SECONDS = 0.1
_CONNECT_WITHIN_SECONDS = 30
_BODY_BYTES = 1200
_HEAD = f"POST {CALLBACK_PATH} HTTP/1.1\r\nHost: stalling\r\nContent-Length: {_BODY_BYTES}\r\n\r\n"
_HALF_A_CALLBACK = _HEAD.encode() + b"{" + b" " * (_BODY_BYTES // 2)


def run(bench: Workbench) -> dict[str, Any]:
    """Put the same load on Backstop without and with clients that stall, in turn."""
    rows: list[Row] = []
    with bench.serve(SQLITE) as server:
        bench.warm_up(server)
        for number_of_round in range(bench.plan.rounds):
            alone = bench.load(server, _CONNECTIONS)
            rows.append(bench.note({"round": number_of_round, "stalling": 0, **alone.as_row()}))
            with _StallingClients(server.port) as clients:
                beside = bench.load(server, _CONNECTIONS, bench.plan.stalled)
            row = {"round": number_of_round, "stalling": _CLIENTS, "dropped": clients.dropped}
            rows.append(bench.note({**row, **beside.as_row()}))
            time.sleep(_RECOVER_SECONDS)
    return {"rounds": rows, "connections": _CONNECTIONS}


def tell(part: Row) -> str:
    """Return the section on callbacks beside clients that stall."""
    rows = []
    for stalling in (0, _CLIENTS):
        some = pick(part["rounds"], stalling=stalling)
        medians = [number(median(some, name)) for name in (REQUESTS, "p50", P99)]
        rows.append((f"{stalling} clients that stall", *medians, str(sum(row["errors"] for row in some))))
    ratio = f"p99 {number(stalls_ratio(part, P99))}, requests a second {number(stalls_ratio(part, REQUESTS))}"
    return (
        f"Backstop on SQLite, {part['connections']} connections; the clients come back when they are dropped."
        f" Ratios: {ratio}.\n\n{table(('', 'requests/s', 'p50 ms', 'p99 ms', 'errors'), rows)}"
    )


class _StallingClients:
    """Clients that send half of a callback and then nothing, and come back when they are dropped."""

    def __init__(self, port: int) -> None:
        self.dropped = 0
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._come_back)

    def __enter__(self) -> Self:
        self._sockets = [self._stall() for _ in range(_CLIENTS)]
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for one in self._sockets:
            one.close()

    def _come_back(self) -> None:
        while not self._over.wait(_BACK_AFTER_SECONDS):
            answered, _, _ = select.select(self._sockets, [], [], 0)  # or closed
            for one in answered:
                with suppress(OSError):  # then it tries again
                    self._sockets[self._sockets.index(one)] = self._stall()
                    one.close()
                    self.dropped += 1

    def _stall(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self._port), _CONNECT_WITHIN_SECONDS)
        client.sendall(_HALF_A_CALLBACK)
        return client
