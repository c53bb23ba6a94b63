"""Callbacks that keep coming to a deployment, one after another, while a test does something to it."""

import threading
from types import TracebackType

import urllib3

from tests.factories import body
from tests.processes import Backstop, wait_until

_AFTER_NO_ANSWER_SECONDS = 0.1


class Incoming:
    """Posts callbacks of new tasks for as long as its block lasts.

    `acknowledged` are the ids of those that were taken in, `spooled` how many of them by the spool,
    `refused` the statuses of the others, 0 for no answer.
    """

    def __init__(self, backstop: Backstop, prefix: str = "t") -> None:
        self._backstop = backstop
        self._prefix = prefix
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._post)
        self.acknowledged: list[str] = []
        self.spooled = 0
        self.refused: list[int] = []

    def __enter__(self) -> "Incoming":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for_more(self, number: int = 20) -> None:
        """Wait until so many more have been acknowledged."""
        enough = len(self.acknowledged) + number
        wait_until(lambda: len(self.acknowledged) >= enough, seconds=60)

    def _post(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            task_id = f"{self._prefix}{number}"
            try:
                status = self._backstop.post_callback(body(task_id)).status
            except urllib3.exceptions.HTTPError:
                self._stop.wait(_AFTER_NO_ANSWER_SECONDS)
                status = 0
            if status in {200, 202}:
                self.acknowledged.append(task_id)
                self.spooled += status == 202
            else:
                self.refused.append(status)
