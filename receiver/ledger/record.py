"""Recording callbacks, the hot path: each becomes a delivery, and what it says joins its task, durably.

See "The life of a delivery" in docs/design.md.
"""

import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from peewee import IntegrityError

from receiver.ledger import evidence
from receiver.ledger.budget import Budget
from receiver.ledger.engine.db import execute_built, on_postgresql, writing
from receiver.ledger.engine.group_commit import GroupCommit
from receiver.ledger.engine.statements import Row, Statement
from receiver.ledger.kinds import CALLBACK, CallbackRow
from receiver.ledger.merge import merge
from receiver.ledger.models import NAMED, Delivery, Task, database
from receiver.ledger.refusals import SHORTENED
from receiver.ledger.timetable import Timetable
from receiver.upstream.results import LARGEST, Unreadable, read_callback

# Longer than any healthy commit. The sender can wait so long, but waiting requests pile up.
COMMIT_WITHIN_SECONDS = 10.0

# Of a body that is not kept whole: enough to see what it was.
KEPT_OF_LARGE = 4096
# Bytes that large callbacks of unknown tasks may store per process and minute. Anyone with the callback URL
# can make up ids. Results are a few KB: hundreds of them a second stay below.
_STRANGERS_MAY_STORE, _WITHIN_SECONDS = 64 * 2**20, 60.0


def _new_uid() -> str:
    # Time first: names that grow are appended to the index. Random ones would be written all over it.
    return f"{time.time_ns():016x}{random.getrandbits(64):016x}"


@dataclass(frozen=True, slots=True)
class Callback:
    """A callback as it came, `size` bytes long; `cut` says why `body` is not all of it, if so.

    `uid` names it wherever it goes: recording it again changes nothing.
    """

    body: bytes
    size: int
    ref: str | None = None
    remote_addr: str | None = None
    headers: Sequence[tuple[str, str]] = ()
    cut: Unreadable | None = None
    token: int | None = None  # which of the configured tokens it came with, by position
    service: str | None = None  # the one that its URL names
    uid: str = field(default_factory=_new_uid)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a callback: its task, that task's status, and what was wrong with the callback.

    `problem` is None if it was read and kept whole. The code `shortened` means that its result was not kept.
    When both `task_id` and `problem` are None, it had been recorded before.
    """

    task_id: str | None
    status: str | None
    problem: Unreadable | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    """One callback, as rows: its delivery, and what it says of its task if it names one."""

    task_id: str | None
    delivery: Row
    said: CallbackRow | None = None
    problem: Unreadable | None = None
    may_shorten: bool = True

    @property
    def is_large(self) -> bool:
        # A small body may hold a large result, compressed.
        longest = max(len(self.delivery["body"]), len(self.delivery["headers"]), len(self._result))
        return self.may_shorten and longest > KEPT_OF_LARGE

    @property
    def stores(self) -> int:
        """Return how many bytes it stores, roughly."""
        return len(self.delivery["body"]) + len(self.delivery["headers"]) + len(self._result)

    @property
    def _result(self) -> str:
        return (self.said and self.said["callback_response"]) or ""

    def shortened(self) -> "_Entry":
        """Return the entry with its body's beginning, and without its result: a look-up brings that."""
        kept = {
            "body": self.delivery["body"][:KEPT_OF_LARGE],
            "headers": "[]" if len(self.delivery["headers"]) > KEPT_OF_LARGE else self.delivery["headers"],
            "problem": self.delivery["problem"] or _as_json(_SHORTENED),
        }
        said = self.said and evidence.without_result(self.said)
        return replace(self, delivery={**self.delivery, **kept}, said=said, problem=_SHORTENED)


def record(
    callback: Callback,
    now: datetime,
    *,
    timetable: Timetable,
    confirm: bool,
    largest: int = LARGEST,
    may_shorten: bool = True,
) -> Recorded:
    """Keep a callback and join what it says of its task. The timetable times the look-up after progress.

    A compressed body may hold `largest` bytes. Without `may_shorten` it is kept whole, however much unknown
    tasks have stored. Requests that record at the same moment share one commit.
    """
    try:
        task_id, delivery, said, problem = rows_of(callback, now, timetable, confirm, largest)
        return _commits.commit(_Entry(task_id, delivery, said, problem, may_shorten))
    except IntegrityError:
        with database.connection_context():
            if not Delivery.select().where(Delivery.uid == callback.uid).exists():
                raise
        return Recorded(None, None)


def rows_of(
    callback: Callback, now: datetime, timetable: Timetable, confirm: bool, largest: int
) -> tuple[str | None, Row, CallbackRow | None, Unreadable | None]:
    """Return the task that a callback names, its delivery, what it says, and why that cannot be read."""
    try:
        if callback.cut:
            raise callback.cut
        result = read_callback(callback.body, callback.headers, largest)
    except Unreadable as problem:
        return None, _delivery(callback, now, "unreadable", problem=problem), None, problem
    said = evidence.of_callback(result, callback.ref, now, timetable, confirm, callback.service)
    return result.task_id, _delivery(callback, now, result.status, task_id=result.task_id), said, None


def _write(entries: Sequence[_Entry]) -> list[Recorded]:
    """Write the entries in one transaction and return what became of each."""
    with writing(at_once=True, pipelined=True), _within_budget(entries) as kept:
        # Lock rows in id order so that two groups cannot deadlock.
        ordered = sorted(kept, key=lambda entry: entry.task_id or "")
        for some in apart([entry.said for entry in ordered if entry.said]):
            _merge_said.execute(some)
        _insert_deliveries.execute([entry.delivery for entry in ordered])
        statuses = _statuses([entry.task_id for entry in ordered if entry.task_id])
    return [
        Recorded(entry.task_id, statuses.get(entry.task_id) if entry.task_id else None, entry.problem)
        for entry in kept
    ]


@contextmanager
def _within_budget(entries: Sequence[_Entry]) -> Iterator[Sequence[_Entry]]:
    """Shorten what large callbacks of tasks that nobody else names would store beyond the budget."""
    large = [entry.task_id or "" for entry in entries if entry.is_large]
    if not large:
        yield entries
        return
    known = {task.id for task in Task.select(Task.id).where(Task.id.in_(large), NAMED)}
    kept, taken = [], 0
    for entry in entries:
        if entry.is_large and entry.task_id not in known:
            if _budget.take(entry.stores):
                taken += entry.stores
            else:
                entry = entry.shortened()
        kept.append(entry)
    try:
        yield kept
    except BaseException:
        _budget.release(taken)  # a group that fails is tried again, one by one
        raise


def apart(rows: Sequence[Row]) -> list[list[Row]]:
    """Divide the rows so that none of the parts has two of one task: PostgreSQL's upsert refuses that."""
    parts: list[list[Row]] = []
    times: Counter[str] = Counter()
    for row in rows:
        if times[row["id"]] == len(parts):
            parts.append([])
        parts[times[row["id"]]].append(row)
        times[row["id"]] += 1
    return parts


def _statuses(task_ids: list[str]) -> dict[str, str]:
    if not task_ids:
        return {}
    if on_postgresql():
        return dict(execute_built("SELECT id, status FROM task WHERE id = ANY($1)", (task_ids,)))
    # All in one row: each row that SQLite returns costs as much as a statement.
    query = "SELECT json_group_object(id, status) FROM task WHERE id IN (SELECT value FROM json_each(?))"
    statuses: dict[str, str] = json.loads(database.execute_sql(query, (json.dumps(task_ids),)).fetchone()[0])
    return statuses


def _delivery(
    callback: Callback,
    now: datetime,
    verdict: str,
    task_id: str | None = None,
    problem: Unreadable | None = None,
) -> Mapping[str, Any]:
    return {
        "uid": callback.uid,
        "task": task_id,
        "received_at": now,
        "verdict": verdict,
        "problem": problem and _as_json(problem),
        "ref": callback.ref and callback.ref.encode(errors="replace").decode().replace("\0", "\ufffd"),
        "remote_addr": callback.remote_addr,
        "headers": json.dumps(list(callback.headers)),
        "body": callback.body,
        "size": callback.size,
        "token": callback.token,
        "service": callback.service,
        "digest": hashlib.sha256(callback.body).digest(),
    }


def _as_json(problem: Unreadable) -> str:
    return json.dumps({"code": problem.code, "message": str(problem)})


_SHORTENED = Unreadable(
    SHORTENED,
    f"Only the first {KEPT_OF_LARGE:,} bytes were kept: too many large callbacks came for tasks that nobody"
    " else names. A look-up asks for the task's result.",
)
_budget = Budget(_STRANGERS_MAY_STORE, within=_WITHIN_SECONDS)
_merge_said = Statement(partial(merge, CALLBACK))
_insert_deliveries = Statement(Delivery.insert_many)
_commits = GroupCommit(_write, within=COMMIT_WITHIN_SECONDS)
