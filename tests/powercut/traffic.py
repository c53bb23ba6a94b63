"""Sends callbacks from several threads over real sockets, and remembers those that were acknowledged."""

import hashlib
import json
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import urllib3

_SENDERS = 8
_UNREADABLE = 0.05  # the part of callbacks that name no task; they are kept too
_LONGEST = 20_000  # bytes of padding


@dataclass(frozen=True)
class Acknowledged:
    """A callback that was answered with 200 or 202."""

    digest: bytes
    task_id: str | None
    is_spooled: bool
    place: int  # in the record of what happens to the disk: what it relies on was recorded before


class Traffic:
    """Callbacks to a URL, from the block's begin to its end. An answer that does not come proves nothing."""

    def __init__(self, url: str, name: str, place: Callable[[], int]) -> None:
        self.acknowledged: list[Acknowledged] = []
        self._url = url
        self._place = place
        self._name = name  # makes all bodies different
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(_SENDERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, sender: int) -> None:
        rng, number = random.Random(f"{self._name}-{sender}"), 0
        with urllib3.PoolManager(retries=False, timeout=20) as http:
            while not self._stop.is_set():
                number += 1
                task_id = f"{self._name}-{sender}-{number}" if rng.random() > _UNREADABLE else None
                body = _body(task_id or f"nothing {self._name}-{sender}-{number}", task_id is not None, rng)
                try:
                    answer = http.request("POST", self._url, body=body)
                except urllib3.exceptions.HTTPError:
                    # Its process was killed, or the power was cut. A socket that is refused would spin.
                    self._stop.wait(0.02)
                    continue
                if answer.status in {200, 202}:
                    digest = hashlib.sha256(body).digest()
                    spooled = "spooled" in answer.json()
                    self.acknowledged.append(Acknowledged(digest, task_id, spooled, self._place()))


def _body(name: str, is_readable: bool, rng: random.Random) -> bytes:
    if not is_readable:
        return name.encode()
    prompt = "x" * int(rng.random() ** 4 * _LONGEST)  # most are short
    return json.dumps(
        {"success": True, "task_id": name, "image_url": "https://x.example/1.png", "prompt": prompt}
    ).encode()
