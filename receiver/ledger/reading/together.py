"""Answers questions that come at the same moment with one query: each query costs a round trip and more."""

import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Generic, TypeVar

Found = TypeVar("Found")


class _Question(Generic[Found]):
    """One caller's question. `turn` is set when it is answered, or when its caller is to ask for all."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.turn = threading.Event()
        self.is_answered = False
        self.found: Found | None = None
        self.problem: BaseException | None = None


class Together(Generic[Found]):
    """Asks `query` for one name or many. One query is in progress; who comes meanwhile shares the next.

    Safe to share between threads. It has no thread of its own: one of those who wait asks for all.
    """

    def __init__(self, query: Callable[[Collection[str]], Mapping[str, Found]]) -> None:
        self._query = query
        self._waiting: list[_Question[Found]] = []
        self._is_busy = False
        self._lock = threading.Lock()

    def find(self, name: str) -> Found | None:
        """Return what the query finds under a name. Raises what the query raises."""
        question: _Question[Found] = _Question(name)
        with self._lock:
            self._waiting.append(question)
            asks_now, self._is_busy = not self._is_busy, True
        try:
            if asks_now:
                # Let ready greenlets ask along: none of them runs during a query to SQLite.
                time.sleep(0)
            else:
                question.turn.wait()
        except BaseException:  # a worker ends what takes too long
            self._leave(question, asks_now)
            raise
        if not question.is_answered:
            self._ask()
        if question.problem is not None:
            raise question.problem
        return question.found

    def _ask(self) -> None:
        """Answer all who wait now, then let the first of those who came meanwhile ask."""
        with self._lock:
            questions, self._waiting = self._waiting, []
        found: Mapping[str, Found] = {}
        problem: BaseException | None = None
        try:
            found = self._query({question.name for question in questions})
        except BaseException as one:  # noqa: BLE001 - raised by all who asked
            problem = one
        for question in questions:
            question.found, question.problem = found.get(question.name), problem
            question.is_answered = True
            question.turn.set()
        self._pass_on()

    def _leave(self, question: _Question[Found], asks_now: bool) -> None:
        """Give up a question. If it was its caller's turn to ask, another one asks."""
        with self._lock:
            if question in self._waiting:
                self._waiting.remove(question)
        if asks_now or (question.turn.is_set() and not question.is_answered):
            self._pass_on()

    def _pass_on(self) -> None:
        with self._lock:
            self._is_busy = bool(self._waiting)
            following = self._waiting[:1]
        for question in following:
            question.turn.set()
