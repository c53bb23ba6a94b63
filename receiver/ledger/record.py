"""Recording callbacks, the hot path: each becomes a delivery, and what it says joins its task, durably.

See "The life of a delivery" in docs/design.md.
"""

import hashlib
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from peewee import IntegrityError

from receiver.ledger import evidence
from receiver.ledger.admission import PASSES, Admission, Entry, UnknownBudget, as_json
from receiver.ledger.engine.db import execute_built, on_postgresql, writing
from receiver.ledger.engine.group_commit import GroupCommit
from receiver.ledger.engine.statements import Row, Statement
from receiver.ledger.kinds import CALLBACK, CallbackRow
from receiver.ledger.merge import merge
from receiver.ledger.models import Delivery, database
from receiver.ledger.timetable import Timetable
from receiver.logs import log_lines, request_id
from receiver.upstream.results import LARGEST, Unreadable, read_callback
from receiver.upstream.services import SERVICES

log = logging.getLogger(__name__)

# Longer than any healthy commit. The sender can wait so long, but waiting requests pile up.
COMMIT_WITHIN_SECONDS = 10.0


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
    service: str | None = None  # the one that its URL names, also one that is unknown
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


def record(
    callback: Callback,
    now: datetime,
    *,
    timetable: Timetable,
    confirm: bool,
    largest: int = LARGEST,
    unknown: UnknownBudget | None = None,
) -> Recorded:
    """Keep a callback and join what it says of its task. The timetable times the look-up after progress.

    A compressed body may hold `largest` bytes. `unknown` limits what is stored if its task is unknown, or has
    very many deliveries; without it everything is kept whole. Requests that record at the same moment share
    one commit.
    """
    try:
        task_id, delivery, said, problem = rows_of(callback, now, timetable, confirm, largest)
        return _commits.commit(Entry(task_id, delivery, said, problem, unknown, request_id.get()))
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
    service = callback.service if callback.service in SERVICES else None  # an unknown one is only kept
    said = evidence.of_callback(result, callback.ref, now, timetable, confirm, service)
    return result.task_id, _delivery(callback, now, result.status, task_id=result.task_id), said, None


def _write(entries: Sequence[Entry]) -> list[Recorded]:
    """Write the entries in one transaction and return what became of each."""
    admission = Admission(entries)
    try:
        with writing(at_once=True, pipelined=True):
            kept = admission.admit()
            statuses, passing = _write_admitted([entry for entry in kept if not entry.is_refused])
    except BaseException:
        admission.undo()  # a group that fails is tried again, one by one
        raise
    admission.settle(passing)
    _log(kept, statuses)
    return [
        Recorded(None, None, entry.problem)
        if entry.is_refused
        else Recorded(entry.task_id, statuses.get(entry.task_id or ""), entry.problem)
        for entry in kept
    ]


def _log(entries: Sequence[Entry], statuses: Mapping[str, str]) -> None:
    """Log a line for each callback of a task, all at once: one by one they would slow callbacks."""
    lines = []
    for entry in entries:
        if entry.task_id is not None and not entry.is_refused:
            words = f"Task {entry.task_id}: a callback came, the task is {statuses[entry.task_id]}."
            lines.append((words, {"task": entry.task_id, "request": entry.request}))
    log_lines(log, lines)


def _write_admitted(entries: Sequence[Entry]) -> tuple[dict[str, str], Collection[str]]:
    """Return the statuses of their tasks, and those of these tasks whose callbacks pass."""
    # Lock rows in id order so that two groups cannot deadlock.
    ordered = sorted(entries, key=lambda entry: entry.task_id or "")
    for some in apart([entry.said for entry in ordered if entry.said]):
        _merge_said.execute(some)
    if ordered:
        _insert_deliveries.execute([entry.delivery for entry in ordered])
    return _statuses([entry.task_id for entry in ordered if entry.task_id])


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


def _statuses(task_ids: list[str]) -> tuple[dict[str, str], Collection[str]]:
    """Return the status of each task, and those of the tasks whose callbacks pass."""
    if not task_ids:
        return {}, ()
    if on_postgresql():
        query = f"SELECT id, status, {PASSES.sql} FROM task WHERE id = ANY($1)"  # noqa: S608 - our own condition
        rows = list(execute_built(query, (task_ids,)))
        return {task_id: status for task_id, status, _ in rows}, {row[0] for row in rows if row[2]}
    # All in one row: each row that SQLite returns costs as much as a statement.
    statuses, passing = database.execute_sql(_STATUSES_IN_A_ROW, (json.dumps(task_ids),)).fetchone()
    return json.loads(statuses), json.loads(passing)


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
        "problem": problem and as_json(problem),
        "ref": callback.ref and callback.ref.encode(errors="replace").decode().replace("\0", "\ufffd"),
        "remote_addr": callback.remote_addr,
        "headers": json.dumps(list(callback.headers)),
        "body": callback.body,
        "size": callback.size,
        "token": callback.token,
        "service": callback.service,
        "digest": hashlib.sha256(callback.body).digest(),
    }


_STATUSES_IN_A_ROW = (
    f"SELECT json_group_object(id, status), json_group_array(id) FILTER (WHERE {PASSES.sql})"  # noqa: S608 - ours
    " FROM task WHERE id IN (SELECT value FROM json_each(?))"
)
_merge_said = Statement(partial(merge, CALLBACK))
_insert_deliveries = Statement(Delivery.insert_many)
_commits = GroupCommit(_write, within=COMMIT_WITHIN_SECONDS)
