"""The customer's app under chaos: it is down for a while, fails often, and keeps what it has accepted."""

import json
import random
import socket
import threading
from collections import defaultdict
from collections.abc import Iterable

from standardwebhooks import Webhook

from tests.sink import Received, Sink, reply, reset

SECRET = "whsec_" + "Y2hhb3Mt" * 6
FAILS = 0.3


class ToldApp:
    """What it was told. An event is a task's id and a sequence."""

    def __init__(self, seed: int) -> None:
        self.is_down = False
        self.fails = FAILS
        self.unsigned = 0
        self.forged = 0
        self.duplicates = 0
        self.sink = Sink(always=self._answer)
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._told: dict[str, list[int]] = defaultdict(list)  # the sequences of each task as they came

    def accepted(self) -> set[tuple[str, int]]:
        """Return the events that it has accepted."""
        with self._lock:
            return {(task_id, one) for task_id, told in self._told.items() for one in told}

    def disordered(self) -> int:
        """Return how many events it accepted after a later one of their task."""
        with self._lock:
            return sum(_disordered(told) for told in self._told.values())

    def _answer(self, sink: Sink, connection: socket.socket) -> bool:
        if self.is_down:
            return reset()(sink, connection)
        with self._lock:
            failure = self._rng.random() < self.fails
            if not failure:
                self._accept(sink.present[connection])
        return self._fail(sink, connection) if failure else reply()(sink, connection)

    def _fail(self, sink: Sink, connection: socket.socket) -> bool:
        act = self._rng.choice([reply(500), reply(503), reply(429, Retry_After="1"), reset()])
        return act(sink, connection)

    def _accept(self, request: Received) -> None:
        try:
            event = Webhook(SECRET).verify(request.body, request.headers)
        except Exception:  # noqa: BLE001 - whatever is wrong with it
            self.unsigned += 1
            event = json.loads(request.body)
        self.forged += b"evil.example" in request.body
        told = self._told[event["data"]["task"]["id"]]
        self.duplicates += event["data"]["sequence"] in told
        told.append(event["data"]["sequence"])


def _disordered(told: Iterable[int]) -> int:
    first = list(dict.fromkeys(told))
    return sum(one < max(first[:position], default=0) for position, one in enumerate(first))
