"""Bugs, planted one at a time: they show what the checks of a world are worth."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from unittest.mock import patch

from peewee import SQL

from receiver.ledger import dealing, discoveries, due_forwards, merge, old, record, store
from receiver.ledger.engine.statements import Query, Statement
from receiver.ledger.evidence import Answer
from receiver.ledger.models import database
from receiver.spool import records, replay
from receiver.upstream.results import Unreadable, read_item
from reconcile import answers, rate_limit
from tests.simulation import receiver, watched
from tests.simulation.clock import process_now
from tests.simulation.failure import UNEXPECTED
from tests.simulation.living import Outcome, run

Bug = Callable[[], AbstractContextManager[Any]]
_EVENT = "task_id, sequence, type, status, settled_by, confirmed, happened_at"


def find(bug: Bug, seeds: Sequence[int]) -> Outcome | None:
    """Return the first world among the seeds that fails with the bug; None if none does."""
    with bug(), statements_built_anew():
        for seed in seeds:
            outcome = run(seed)
            if outcome.failures:
                assert outcome.failures[0].what != UNEXPECTED, outcome.failures[0]  # it does not even run
                return outcome
    return None


def a_lease_that_a_stop_forgets() -> AbstractContextManager[Any]:
    return patch.object(store, "release", lambda claimed, now: None)


def a_lease_that_ends_before_the_call() -> AbstractContextManager[Any]:
    def briefly(now: datetime, **question: Any) -> Any:
        return claim(now, **{**question, "lease": timedelta(seconds=1)})

    claim = store.claim
    return patch.object(store, "claim", briefly)


def a_lost_update() -> AbstractContextManager[Any]:
    """Who writes last is right, however much more was known."""
    return patch.object(merge, "_raises", lambda witness: SQL("(1 = 1)"))


@contextmanager
def an_event_outside_the_transaction() -> Iterator[None]:
    """Events wait in memory until the change is committed, and are written then."""
    commit = watched.WatchedSqlite.commit

    def commit_and_tell(self: Any) -> None:
        commit(self)
        self.execute_sql(f"INSERT INTO event ({_EVENT}) SELECT {_EVENT} FROM unsent")
        self.execute_sql("DELETE FROM unsent")

    def begin(self: Any, lock_type: str | None = None) -> None:
        begin_first(self, lock_type)
        self.connection().execute("DELETE FROM unsent")

    begin_first = watched.WatchedSqlite.begin
    with (
        _with_sql("CREATE TABLE unsent AS SELECT * FROM event", also=_events_unsent),
        patch.object(watched.WatchedSqlite, "commit", commit_and_tell),
        patch.object(watched.WatchedSqlite, "begin", begin),
    ):
        yield


def a_give_up_that_ignores_pauses() -> AbstractContextManager[Any]:
    return patch.object(store, "pauses_since", lambda *_: [])


def an_error_that_counts_as_an_answer() -> AbstractContextManager[Any]:
    """An outage of upstream's uses up a task's patience."""
    said = property(lambda self: self.result.status if self.result else "absent")
    return patch.object(Answer, "verdict", said)


def an_answer_before_the_commit() -> AbstractContextManager[Any]:
    """The sender is told that its callback is kept before it is."""

    def commit(self: Any, item: Any) -> Any:
        if self._write is not record._write:
            return first(self, item)  # of submissions, or the spool
        process = process_now()
        assert process is not None
        process.spawn(partial(later, self, item))
        return record.Recorded(None, None)

    def later(self: Any, item: Any) -> None:
        with suppress(Exception):
            first(self, item)

    first = receiver.CommitInOneThread.commit
    return patch.object(receiver.CommitInOneThread, "commit", commit)


def an_append_after_a_torn_record() -> AbstractContextManager[Any]:
    last = records.last_number
    return patch.object(records, "last_number", lambda file: last(file) or 0)


def a_replay_that_drops_what_is_refused() -> AbstractContextManager[Any]:
    """An outage of the database while the spool is replayed: what could not be taken counts as taken."""
    take = replay.Replay._replay_line

    def replay_line(self: Any, line: bytes) -> str:
        try:
            return take(self, line)
        except Exception:  # noqa: BLE001 - the bug
            return "taken"

    return patch.object(replay.Replay, "_replay_line", replay_line)


def answers_matched_by_their_order() -> AbstractContextManager[Any]:
    def match(ids: list[str], items: list[Any]) -> dict[str, Answer]:
        read = []
        for item in items:
            try:
                read.append(Answer(read_item(item)))
            except Unreadable:
                continue
        read += [Answer(error="none")] * len(ids)
        return dict(zip(sorted(ids), read, strict=False))

    return patch.object(answers, "match_answers", match)


def a_discovery_that_forgets_its_errors() -> AbstractContextManager[Any]:
    """However a discovery ends, all that was submitted until then counts as seen."""
    finish = discoveries.finish

    def release(turn: Any) -> None:
        finish(turn, turn.leased_until, turn.leased_until)

    return patch.object(discoveries, "release", release)


def a_total_that_ignores_disputes() -> AbstractContextManager[Any]:
    def without(sql: str) -> str:
        return sql.replace("OLD.doubted_at, ", "").replace("NEW.doubted_at, ", "")

    return _with_sql(also=lambda ledger: _replace_triggers(ledger, "task_tally_update", without))


def a_rate_that_nobody_keeps() -> AbstractContextManager[Any]:
    return patch.object(rate_limit.RateLimiter, "take", lambda self: True)


@contextmanager
def a_forward_outside_the_transaction_of_its_place() -> Iterator[None]:
    """The place is moved in a transaction of its own, and a process may die before the forwards are written."""

    def go_on(reader: str, after: int, last: int) -> bool:
        moved = first(reader, after, last)
        database.commit()
        database.begin()
        return moved

    first = dealing.go_on
    with patch.object(dealing, "go_on", go_on):
        yield


def a_claim_that_ignores_the_order() -> AbstractContextManager[Any]:
    """A later event of a task does not wait for an earlier one that is tried again."""
    ended = ("delivered", "failed", "resent", "dismissed", "pending")
    return patch.object(due_forwards, "_ENDED", ended)


def a_pruning_that_counts_no_expired_tasks() -> AbstractContextManager[Any]:
    return patch.object(old, "_count_expired", lambda ids: None)


BUGS: tuple[Bug, ...] = (
    a_pruning_that_counts_no_expired_tasks,
    a_forward_outside_the_transaction_of_its_place,
    a_claim_that_ignores_the_order,
    a_lease_that_a_stop_forgets,
    a_lease_that_ends_before_the_call,
    a_lost_update,
    an_event_outside_the_transaction,
    a_give_up_that_ignores_pauses,
    an_error_that_counts_as_an_answer,
    an_answer_before_the_commit,
    an_append_after_a_torn_record,
    a_replay_that_drops_what_is_refused,
    answers_matched_by_their_order,
    a_discovery_that_forgets_its_errors,
    a_total_that_ignores_disputes,
    a_rate_that_nobody_keeps,
)


@contextmanager
def statements_built_anew() -> Iterator[None]:
    """Let statements that are built once be built with the bug, and again without it."""
    # By type() alone: isinstance would look behind the proxies of Flask.
    statements = [one for one in gc.get_objects() if type(one) in (Query, Statement)]
    with ExitStack() as stack:
        for statement in statements:
            stack.enter_context(patch.object(statement, "_built", {}))
        yield


def _with_sql(
    *statements: str, also: Callable[[Any], None] = lambda ledger: None
) -> AbstractContextManager[Any]:
    """Change the ledger with which each world begins."""

    def change(ledger: Any) -> None:
        for statement in statements:
            ledger.execute(statement)
        also(ledger)

    return patch.object(watched, "alter", change)


def _events_unsent(ledger: Any) -> None:
    for name in ("task_event_insert_status", "task_event_insert_dispute", "task_event_update"):
        _replace_triggers(ledger, name, lambda sql: sql.replace("INSERT INTO event", "INSERT INTO unsent"))


def _replace_triggers(ledger: Any, name: str, change: Callable[[str], str]) -> None:
    (sql,) = ledger.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    assert change(sql) != sql
    ledger.execute(f"DROP TRIGGER {name}")
    ledger.execute(change(sql))
