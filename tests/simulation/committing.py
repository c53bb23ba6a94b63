"""The product's group commit where there is one thread."""

from typing import Any

from receiver.ledger.engine.group_commit import GroupCommit
from tests.simulation.clock import WorldClock

_TOGETHER_SECONDS = 0.002


class CommitInOneThread(GroupCommit[Any, Any]):
    """The strand that begins a group writes it, instead of a thread."""

    clock: WorldClock

    def commit(self, item: Any) -> Any:
        group, place = self._join(item)
        if place == 0:
            self.clock.wait(_TOGETHER_SECONDS)
            self._write_group(group)
        while not group.is_done.is_set():
            self.clock.wait(_TOGETHER_SECONDS / 2)
        return group.take(place)
