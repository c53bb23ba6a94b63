"""Shares the calls of a run among the services, so that the backlog of one keeps no other waiting. Pure."""

from collections.abc import Callable, Collection

from receiver.ledger.store import Claim

# To find that no other service has due tasks, the database reads all that are due.
_LOOK_AGAIN_AFTER_SECONDS = 1.0


class Fairness:
    """Whose turn it is: after a call about one service, those that were not asked about come first.

    `take` claims due tasks of the service that has waited longest, except for those that it is given.
    """

    def __init__(self, take: Callable[[Collection[str]], Claim]) -> None:
        self._take = take
        self._asked: set[str] = set()
        self._look_again_at = 0.0  # monotonic

    def claim(self, now: float) -> Claim:
        """Claim due tasks of a service. `now` is monotonic."""
        if self._asked and now >= self._look_again_at:
            if (claimed := self._take(self._asked)).tasks:
                self._asked.add(claimed.service)
                return claimed
            if len(self._asked) == 1:
                self._look_again_at = now + _LOOK_AGAIN_AFTER_SECONDS
        claimed = self._take(())
        self._asked = {claimed.service} if claimed.tasks else set()
        return claimed
