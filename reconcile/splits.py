"""Tells a bad id from an error that only looks like one, while batches are halved to find it. Pure."""

from collections.abc import Sequence

Ids = tuple[str, ...]


class Splits:
    """The batches of one run that upstream refused with a code that nobody knows, and their halves.

    One bad id spoils one half of a batch and one half of that. Where both halves of a batch are refused, and
    both halves of one of these too, no id is bad: the error concerns all calls.
    """

    def __init__(self) -> None:
        self._parent: dict[Ids, Ids] = {}
        self._refused: dict[Ids, set[Ids]] = {}  # of each batch the halves that were refused

    def halve(self, batch: Sequence[str], halves: Sequence[Sequence[str]]) -> None:
        """Note that a batch that was refused is asked about in halves."""
        for half in halves:
            self._parent[tuple(half)] = tuple(batch)

    def refuse(self, batch: Sequence[str]) -> bool:
        """Note that a batch was refused. Return whether the error concerns all calls."""
        parent = self._parent.get(tuple(batch))
        if parent is None:
            return False
        self._refused.setdefault(parent, set()).add(tuple(batch))
        root = self._parent.get(parent, parent)
        halves = self._refused.get(root, set())
        is_top = root not in self._parent
        return is_top and len(halves) == 2 and any(len(self._refused.get(half, ())) == 2 for half in halves)
