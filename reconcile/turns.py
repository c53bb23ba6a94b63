"""What a run asks about next, so that nobody can use up its calls.

Doubtful tasks get one call in four while known ones wait. Halves of batches that an id has spoilt take
turns with new tasks. So the ids that upstream refuses, or that a stranger makes up, cost the others a
bounded share of the calls.
"""

from collections import deque
from collections.abc import Callable
from datetime import datetime

from receiver.ledger.store import Claim

DOUBTFUL_TURN = 4


class Turns:
    """Whose turn it is. `claim` takes due tasks, known or doubtful ones; it may find none."""

    def __init__(self, claim: Callable[[bool], Claim]) -> None:
        self._claim = claim
        self._halves: dict[bool, deque[Claim]] = {False: deque(), True: deque()}  # by Claim.doubtful
        self._calls = 0
        self._halves_next = {False: False, True: False}
        self.exhausted = False  # nothing was due at the last turn, and claims are not tried any more

    @property
    def has_more(self) -> bool:
        return not self.exhausted or any(self._halves.values())

    def next(self, now: datetime) -> Claim | None:
        """Return what to ask about; None when nothing is due."""
        self._calls += 1
        doubtful_first = self._calls % DOUBTFUL_TURN == 0
        for doubtful in (doubtful_first, not doubtful_first):
            if claimed := self._next_of(doubtful, now):
                return claimed
        self.exhausted = True
        return None

    def put(self, *claims: Claim) -> None:
        """Take in what was claimed and is to be asked about: halves of a batch, or a probe."""
        for claimed in claims:
            self._halves[claimed.doubtful].append(claimed)

    def take_rest(self) -> list[Claim]:
        """Return what was claimed and has not been asked about."""
        rest = [claimed for halves in self._halves.values() for claimed in halves]
        for halves in self._halves.values():
            halves.clear()
        return rest

    def take_rest_of(self, service: str) -> list[Claim]:
        """Return what was claimed of a service and has not been asked about."""
        rest = [claimed for claimed in self.take_rest() if claimed.tasks]
        self.put(*(claimed for claimed in rest if claimed.service != service))
        return [claimed for claimed in rest if claimed.service == service]

    def _next_of(self, doubtful: bool, now: datetime) -> Claim | None:
        halves = self._halves[doubtful]
        while halves and halves[0].leased_until <= now:
            halves.popleft()  # their lease has lapsed: they are due again, and may be somebody else's
        halves_next = self._halves_next[doubtful] = not self._halves_next[doubtful]
        if halves and halves_next:
            return halves.popleft()
        if not self.exhausted and (claimed := self._claim(doubtful)).tasks:
            return claimed
        return halves.popleft() if halves else None
