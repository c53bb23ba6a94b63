"""Answers questions that come at the same moment with one query: each query costs a round trip and more."""

import threading
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
        if not asks_now:
            question.turn.wait()
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
        with self._lock:
            self._is_busy = bool(self._waiting)
            following = self._waiting[:1]
        for question in (*questions, *following):
            question.turn.set()
