"""Recording callbacks, the hot path: each becomes a delivery, and what it says joins its task, durably."""

import hashlib
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from peewee import IntegrityError

from receiver.ledger import evidence
from receiver.ledger.db import execute_all, writing
from receiver.ledger.group_commit import GroupCommit
from receiver.ledger.merge import merge, schedule_of_callback
from receiver.ledger.models import Delivery, Task, database
from receiver.ledger.prepared import Prepared, Row
from receiver.ledger.results import Unreadable, read_callback

# Longer than a healthy database ever takes. The sender does not mind, but each that waits holds a thread.
COMMIT_WITHIN_SECONDS = 10.0


def _new_uid() -> str:
    # The time first: an index of names that grow is appended to, one of random names is written all over.
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
    uid: str = field(default_factory=_new_uid)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a callback: its task with that task's status, or why it is no result.

    Nothing of it when it had been recorded before.
    """

    task_id: str | None
    status: str | None
    problem: Unreadable | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    """The rows of one callback: its delivery, and what it says of its task, if it names one."""

    delivery: Row
    said: Row | None = None


def record(callback: Callback, now: datetime, *, grace: timedelta, confirm: bool) -> Recorded:
    """Keep a callback and join what it says of its task. After progress a look-up waits for `grace`.

    What other threads record at the same moment is committed together with it.
    """
    try:
        return _record(callback, now, grace, confirm)
    except IntegrityError:
        with database.connection_context():
            if not Delivery.select().where(Delivery.uid == callback.uid).exists():
                raise
        return Recorded(None, None)


def _record(callback: Callback, now: datetime, grace: timedelta, confirm: bool) -> Recorded:
    try:
        if callback.cut:
            raise callback.cut
        result = read_callback(callback.body)
    except Unreadable as problem:
        _commits.commit(_Entry(_delivery(callback, now, "unreadable", problem=problem)))
        return Recorded(None, None, problem)
    said = evidence.of_callback(result, callback.ref, now, grace, confirm)
    entry = _Entry(_delivery(callback, now, result.status, task_id=result.task_id), said)
    return Recorded(result.task_id, _commits.commit(entry))


def _write(entries: Sequence[_Entry]) -> list[str | None]:
    """Write the entries in one transaction and return the status of each one's task, if it names one."""
    # In the order of their tasks' ids: two groups that lock rows in one order cannot deadlock.
    ordered = sorted(entries, key=lambda entry: entry.delivery["task"] or "")
    with writing():
        joined = execute_all(_join.fill(entry.said) for entry in ordered if entry.said)
        execute_all(_keep.fill(entry.delivery) for entry in ordered)
    statuses: dict[str, str] = dict(joined)
    return [statuses.get(entry.delivery["task"]) for entry in entries]


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
        "problem": problem and json.dumps({"code": problem.code, "message": str(problem)}),
        "ref": callback.ref and callback.ref.encode(errors="replace").decode().replace("\0", "\ufffd"),
        "remote_addr": callback.remote_addr,
        "headers": json.dumps(list(callback.headers)),
        "body": callback.body,
        "size": callback.size,
        "digest": hashlib.sha256(callback.body).digest(),
    }


_join = Prepared(lambda row: merge([row], schedule_of_callback()).returning(Task.id, Task.status))
_keep = Prepared(Delivery.insert)
_commits = GroupCommit(_write, within=COMMIT_WITHIN_SECONDS)
