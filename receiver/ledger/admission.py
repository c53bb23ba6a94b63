"""Limits what callbacks of unknown tasks may store: rows, and the bytes of large ones.

A task is unknown if neither a caller nor upstream has named it. Anyone with the callback URL can make up ids.
The first callbacks of a known task always pass; beyond MOST_OF_KNOWN they count as those of unknown tasks.
See "The callback URL" in docs/security.md.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from peewee import SQL

from receiver.ledger import evidence
from receiver.ledger.budget import Budget
from receiver.ledger.engine.statements import Row
from receiver.ledger.kinds import CallbackRow
from receiver.ledger.models import NAMED, Task
from receiver.ledger.refusals import SHORTENED, UNKNOWN_REFUSED
from receiver.upstream.results import Unreadable

# Deliveries of a known task. Upstream sends one for each step of its progress, in whole percents at most.
MOST_OF_KNOWN = 200
PASSES = SQL(f"({NAMED.sql} AND delivery_count <= {MOST_OF_KNOWN})")
# Of a body that is not kept whole: enough to see what it was.
KEPT_OF_LARGE = 4096
# A burst may have as many rows as are allowed in this time.
BURST_MINUTES = 10


@dataclass(frozen=True, slots=True)
class UnknownBudget:
    """What callbacks that do not pass may store in this process: rows, and bytes of large ones."""

    rows: Budget
    bytes: Budget

    @classmethod
    def a_minute(cls, rows: int, size: int) -> "UnknownBudget":
        """Return a budget of so many rows and bytes a minute."""
        return cls(Budget(rows * BURST_MINUTES, within=BURST_MINUTES * 60), Budget(size, within=60))


@dataclass(frozen=True, slots=True)
class Entry:
    """One callback, as rows: its delivery, and what it says of its task if it names one.

    `unknown` is the budget that counts if it does not pass; without one it is kept whole.
    """

    task_id: str | None
    delivery: Row
    said: CallbackRow | None = None
    problem: Unreadable | None = None
    unknown: UnknownBudget | None = None
    request: str | None = None  # the id of the request that brought it, for the log

    @property
    def is_refused(self) -> bool:
        """Whether it is not stored at all."""
        return self.problem is _REFUSED

    @property
    def is_large(self) -> bool:
        # A small body may hold a large result, compressed.
        longest = max(len(self.delivery["body"]), len(self.delivery["headers"]), len(self._result))
        return self.unknown is not None and longest > KEPT_OF_LARGE

    @property
    def stores(self) -> int:
        """Return how many bytes it stores, roughly."""
        return len(self.delivery["body"]) + len(self.delivery["headers"]) + len(self._result)

    @property
    def _result(self) -> str:
        return (self.said and self.said["callback_response"]) or ""

    def refused(self) -> "Entry":
        """Return the entry as one that is not stored."""
        return replace(self, problem=_REFUSED)

    def shortened(self) -> "Entry":
        """Return the entry with its body's beginning, and without its result: a look-up brings that."""
        kept = {
            "body": self.delivery["body"][:KEPT_OF_LARGE],
            "headers": "[]" if len(self.delivery["headers"]) > KEPT_OF_LARGE else self.delivery["headers"],
            "problem": self.delivery["problem"] or as_json(_SHORTENED),
        }
        said = self.said and evidence.without_result(self.said)
        return replace(self, delivery={**self.delivery, **kept}, said=said, problem=_SHORTENED)


class Admission:
    """What the entries of a group are charged.

    Each is charged a row before it is known whether it passes. `settle` gives that back if it does.
    So nothing is asked of the database while the budget lasts.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._rows: list[tuple[UnknownBudget, Entry]] = []
        self._bytes: list[tuple[UnknownBudget, int]] = []
        # By identity: an entry cannot be hashed.
        self._beyond = {id(entry) for entry in entries if not self._take_row(entry)}
        self._large = {id(entry) for entry in entries if entry.is_large}
        self._entries = entries

    def admit(self) -> Sequence[Entry]:
        """Return the entries as they are to be stored, some of them shortened or refused."""
        asked = self._beyond | self._large
        if not asked:
            return self._entries
        passing = _passing([entry for entry in self._entries if id(entry) in asked])
        return [self._admit(entry, passing) for entry in self._entries]

    def settle(self, passing: Collection[str]) -> None:
        """Give back what the entries of these tasks were charged, once all are stored."""
        for budget, entry in self._rows:
            if entry.task_id in passing:
                budget.rows.release(1)

    def undo(self) -> None:
        """Give everything back: nothing was stored."""
        for budget, _ in self._rows:
            budget.rows.release(1)
        for budget, size in self._bytes:
            budget.bytes.release(size)

    def _take_row(self, entry: Entry) -> bool:
        if entry.unknown is None:
            return True
        taken = entry.unknown.rows.take(1)
        if taken:
            self._rows.append((entry.unknown, entry))
        return taken

    def _admit(self, entry: Entry, passing: Collection[str]) -> Entry:
        if entry.unknown is None or entry.task_id in passing:
            return entry
        if id(entry) in self._beyond:
            return entry.refused()
        if id(entry) not in self._large:
            return entry
        if not entry.unknown.bytes.take(entry.stores):
            return entry.shortened()
        self._bytes.append((entry.unknown, entry.stores))
        return entry


def as_json(problem: Unreadable) -> str:
    """Return a problem as a delivery keeps it."""
    return json.dumps({"code": problem.code, "message": str(problem)})


def _passing(entries: Sequence[Entry]) -> set[str]:
    ids = [entry.task_id for entry in entries if entry.task_id]
    return {task.id for task in Task.select(Task.id).where(Task.id.in_(ids), PASSES)} if ids else set()


_REFUSED = Unreadable(
    UNKNOWN_REFUSED,
    "Too many callbacks came for tasks that nobody else names, or for one task. This one is not kept."
    " Register your tasks, or raise UNKNOWN_CALLBACKS_PER_MINUTE.",
)
_SHORTENED = Unreadable(
    SHORTENED,
    f"Only the first {KEPT_OF_LARGE:,} bytes were kept: too many large callbacks came for tasks that nobody"
    " else names, or for one task. A look-up asks for the task's result.",
)
