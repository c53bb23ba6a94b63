"""Finds lost submissions: those without a key whose answer was lost, and of whose task nobody was told."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from receiver.ledger.engine.statements import Query
from receiver.ledger.submission import LOST, OPEN, Submission

_MOST_AT_ONCE = 1000


def list_lost(digests: Collection[bytes], now: datetime, since: datetime) -> list[Submission]:
    """Return those with one of these contents, the oldest first.

    One whose task was found counts if it became unclear after `since`. It reads in the caller's transaction.
    """
    if not digests:
        return []
    lost = _list_some(digests, now, since)
    if len(lost) == _MOST_AT_ONCE:  # one content may have hidden the others
        lost = [one for digest in set(digests) for one in _list_some([digest], now, since)]
    return sorted(lost, key=lambda one: one.id)


def _list_some(digests: Collection[bytes], now: datetime, since: datetime) -> list[Submission]:
    return _lost.objects(Submission, now=now, since=since, digests=list(digests))


def _build_lost(now: Any, since: Any, digests: Any) -> Any:
    # Open ones count however old they are: upstream has not shown that it never had them.
    is_lost = Submission.unclear_at.is_null(False) | (Submission.leased_until <= now)
    is_found = Submission.task_id.is_null(False) & (Submission.unclear_at > since)
    # Any bound, and no order: otherwise SQLite reads all submissions, and not those in the index.
    asked_for = Submission.digest.in_(digests)
    open_ones = _without_key(OPEN, Submission.sent_at > datetime.min, is_lost, asked_for)
    found = _without_key(LOST, Submission.api_key > "", is_found, asked_for)
    return open_ones.union_all(found).limit(_MOST_AT_ONCE)


def _without_key(*conditions: Any) -> Any:
    return Submission.select().where(*conditions, Submission.repeat_key.is_null())


_lost = Query(_build_lost)
