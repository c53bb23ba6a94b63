"""Shares upstream's answers among the callers of this process who ask the same, some for seconds."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

_MOST_KEPT, _LARGEST_KEPT = 100, 2**20  # answers, and bytes of each
_ANSWER_WITHIN_SECONDS = 35.0  # the worker ends a request after 40 s


@dataclass(frozen=True, slots=True)
class Told:
    """An answer of upstream's, as it came."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def is_good(self) -> bool:
        return self.status == 200


@dataclass(eq=False, slots=True)
class _Question:
    """A question in progress. Others who ask the same wait for its answer."""

    answered: threading.Event = field(default_factory=threading.Event)
    told: Told | None = None
    problem: Exception | None = None


class Shared:
    """The answers of this process. Safe to share between threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, tuple[float, Told]] = OrderedDict()
        self._asked: dict[bytes, _Question] = {}
        self._lock = threading.Lock()

    def get(
        self, key: bytes, ask: Callable[[], Told], fresh_for: float = 0.0, useful_for: float = 0.0
    ) -> Told:
        """Return the answer to the question `key`: a known one that is fresh, else what `ask` returns.

        When upstream gives no good answer, a known one that is still useful counts; both are in seconds.
        Otherwise this returns what upstream said, or raises what `ask` raised.
        """
        with self._lock:
            if known := self._known(key, fresh_for):
                return known
            question = self._asked.get(key)
            is_ours = question is None
            if question is None:
                question = self._asked[key] = _Question()
        if is_ours:
            self._ask(key, question, ask, is_kept=fresh_for > 0)
        elif not question.answered.wait(_ANSWER_WITHIN_SECONDS):
            return ask()
        return self._best(key, question, useful_for)

    def _ask(self, key: bytes, question: _Question, ask: Callable[[], Told], is_kept: bool) -> None:
        try:
            question.told = ask()
        except Exception as problem:  # noqa: BLE001 - raised by all who asked
            question.problem = problem
        finally:
            with self._lock:
                del self._asked[key]
                if is_kept:
                    self._keep(key, question.told)
            question.answered.set()

    def _keep(self, key: bytes, told: Told | None) -> None:
        if told is None or not told.is_good or len(told.body) > _LARGEST_KEPT:
            return
        self._kept[key] = (time.monotonic(), told)
        self._kept.move_to_end(key)
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)

    def _known(self, key: bytes, within: float) -> Told | None:
        at, told = self._kept.get(key, (0.0, None))
        return told if told and time.monotonic() - at <= within else None

    def _best(self, key: bytes, question: _Question, useful_for: float) -> Told:
        if question.told and question.told.is_good:
            return question.told
        with self._lock:
            older = self._known(key, useful_for)
        if older is not None:
            return older
        if question.told is None:
            assert question.problem is not None
            raise question.problem
        return question.told
