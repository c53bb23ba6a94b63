"""When a disk is nearly full: one rule for the overview, the alerts and `check`. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

# A disk is nearly full below this share of it, within these bytes.
_FREE_SHARE, _FREE_AT_LEAST, _FREE_ENOUGH = 0.05, 200 * 2**20, 2 * 2**30
_FREE_ENOUGH_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Room:
    """The room on a disk that we write to, in bytes."""

    path: str
    free: int
    total: int

    @property
    def is_nearly_full(self) -> bool:
        """Tell whether it has too little room left."""
        # Of a small disk a fifth is enough.
        at_least = min(_FREE_AT_LEAST, self.total * _FREE_ENOUGH_SHARE)
        return self.free < max(at_least, min(self.total * _FREE_SHARE, _FREE_ENOUGH))


def tightest(rooms: Iterable[Room]) -> Room | None:
    """Return the disk to warn of first: one that is nearly full, then the one with the least room.

    None if there is no disk. A large disk that is nearly full may have more bytes free than a small one that
    is not.
    """
    return min(rooms, key=lambda room: (not room.is_nearly_full, room.free), default=None)
