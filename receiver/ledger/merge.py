"""How evidence about tasks joins what is known: one upsert, whatever order the evidence comes in.

A row of evidence is a row of `task` that holds only what one registration, callback or look-up says. Each
column joins by taking the greater (a witness), the better sourced (a fact) or the earlier (a time), so that
repeating or reordering evidence changes nothing. The statement that writes does the joining: two processes
that learn of one task at the same moment cannot overwrite each other.
"""

from collections.abc import Collection, Iterable
from typing import Any

from peewee import EXCLUDED, SQL, Case, Insert, TextField, fn

from receiver.ledger.engine.db import on_postgresql
from receiver.ledger.evidence import Evidence
from receiver.ledger.models import Task
from receiver.upstream.results import EXPIRED, FINAL, PENDING

Assignments = dict[Any, Any]  # peewee fields and the expressions that become their values
Told = Collection[str]  # the columns that some row of evidence tells of; the others cannot change

_CALLBACK = (Task.callback_status, Task.callback_progress, Task.callback_response, Task.callback_error)
_LOOKUP = (Task.lookup_status, Task.lookup_progress, Task.lookup_response, Task.lookup_error)
_FACTS = (Task.type, Task.ref, Task.trace_id, Task.request, Task.submitted_at)
_EARLIEST = (Task.registered_at, Task.finished_at)
_REQUIRED = {name: field.default for name, field in Task._meta.fields.items() if field.default is not None}


def merge(rows: Iterable[Evidence], schedule: Assignments) -> Insert:
    """Return the upsert that joins `rows`, at most one a task and all of one kind, with what is known.

    They must be in id order, so that two writers cannot deadlock.
    `schedule` says how the columns join that time the next look-up; those it leaves out stay as they are.
    """
    complete = _complete(rows)
    told = complete[0].keys()
    return Task.insert_many(complete).on_conflict(
        conflict_target=[Task.id],
        update={**_witnesses(told), **_facts(told), **_settlement(told), **schedule},
    )


def insert_new(rows: Iterable[Evidence]) -> Insert:
    """Return the statement that inserts the tasks among `rows`, in the order of their ids, that are new."""
    return Task.insert_many(_complete(rows)).on_conflict_ignore()


def schedule_of_callback() -> Assignments:
    """A callback that adds something gives the time of the next look-up anew; one that repeats does not.

    One that contradicts upstream's final answer makes the task due once more, at once.
    """
    adds = _raises_callback() & ~_is_final(Task.lookup_status)
    next_lookup_at = [(adds, EXCLUDED.next_lookup_at), (_contradicts_upstream(), EXCLUDED.created_at)]
    return {
        Task.next_lookup_at: Case(None, next_lookup_at, Task.next_lookup_at),
        Task.attempts: _choose(adds, Task.attempts),
        Task.silent_since: _choose(adds, Task.silent_since),
        Task.delivery_count: Task.delivery_count + EXCLUDED.delivery_count,
    }


def schedule_of_lookup(leased_until: Any) -> Assignments:
    """A look-up times the next one, unless somebody has timed it anew since the lease was taken."""
    leased = Task.next_lookup_at == leased_until
    gives_up = leased & EXCLUDED.gave_up_at.is_null(False)
    final = _is_final(EXCLUDED.lookup_status)
    # A callback that came after the question and says otherwise keeps the task due.
    ends = final & (
        leased | ~_is_final(Task.callback_status) | (Task.callback_status == EXCLUDED.lookup_status)
    )
    return {
        Task.next_lookup_at: Case(
            None, [(ends, SQL("NULL")), (leased, EXCLUDED.next_lookup_at)], Task.next_lookup_at
        ),
        Task.leased_until: _end_of_lease(leased_until),
        Task.attempts: _choose(leased, Task.attempts),
        Task.silent_since: _choose(EXCLUDED.silent_since > Task.silent_since, Task.silent_since),
        Task.gave_up_at: _choose(gives_up & Task.gave_up_at.is_null(), Task.gave_up_at),
        Task.status: Case(
            None,
            [(gives_up & (Task.status == PENDING) & ~final, EXPIRED)],
            _settlement({Task.lookup_status.name})[Task.status],
        ),
        Task.doubted_at: _choose(leased & Task.doubted_at.is_null(), Task.doubted_at),
        Task.late_answers: _choose(leased, Task.late_answers),
        Task.refused_at: _choose(leased, Task.refused_at),
        Task.last_lookup_error: EXCLUDED.last_lookup_error,
        Task.lookup_count: Task.lookup_count + EXCLUDED.lookup_count,
    }


def _end_of_lease(leased_until: Any) -> Any:
    # Only of our own lease: who comes late must not end that of another.
    return Case(None, [(Task.leased_until == leased_until, SQL("NULL"))], Task.leased_until)


def _complete(rows: Iterable[Evidence]) -> list[Evidence]:
    rows = list(rows)
    told: Evidence = {name: None for row in rows for name in row}
    return [{**told, **_REQUIRED, **row} for row in rows]


def _witnesses(told: Told) -> Assignments:
    assignments: Assignments = {}
    if _CALLBACK[0].name in told:
        assignments |= {
            column: _choose(_raises_callback(), column) for column in (Task.callback_key, *_CALLBACK)
        }
        assignments |= _acknowledged(_raises_callback(), Task.callback_status)
    if _LOOKUP[0].name in told:
        assignments |= {column: _choose(_raises_lookup(), column) for column in (Task.lookup_key, *_LOOKUP)}
        assignments |= _acknowledged(_raises_lookup(), Task.lookup_status)
    return assignments


def _acknowledged(raises: Any, status: Any) -> Assignments:
    # A person acknowledged what both witnesses said then: void once one of them says something else.
    before, after = (fn.COALESCE(each, PENDING) for each in (status, getattr(EXCLUDED, status.name)))
    return {
        Task.acknowledged_at: Case(None, [(raises & (before != after), SQL("NULL"))], Task.acknowledged_at)
    }


def _facts(told: Told) -> Assignments:
    assignments: Assignments = {}
    for fact in (fact for fact in _FACTS if fact.name in told):
        source = getattr(Task, f"{fact.name}_source")
        told_source = getattr(EXCLUDED, source.name)
        # Where nothing is told its source is NULL, and no comparison with NULL is true.
        better = source.is_null() | (told_source < source) | ((told_source == source) & _precedes(fact))
        for column in (fact, source, *((Task.prompt,) if fact is Task.request else ())):
            assignments[column] = _choose(told_source.is_null(False) & better, column)
    if Task.registered_at.name in told:
        # Callbacks do not name a service: one was assumed. The first who knows it tells.
        is_assumed = Task.registered_at.is_null() & Task.lookup_status.is_null()
        assignments[Task.service] = _choose(is_assumed, Task.service)
    for time in (time for time in _EARLIEST if time.name in told):
        assignments[time] = _choose(time.is_null() | _precedes(time), time)
    return assignments


def _settlement(told: Told) -> Assignments:
    if Task.callback_status.name in told:
        settles = _raises_callback() & _is_final(EXCLUDED.callback_status) & ~_is_final(Task.lookup_status)
    elif Task.lookup_status.name in told:
        settles = _raises_lookup() & _is_final(EXCLUDED.lookup_status)
    else:
        return {}
    changes = settles & (EXCLUDED.status != Task.status)
    return {column: _choose(changes, column) for column in (Task.status, Task.settled_by, Task.settled_at)}


def _raises_callback() -> Any:
    return EXCLUDED.callback_key > Task.callback_key


def _raises_lookup() -> Any:
    return EXCLUDED.lookup_key > Task.lookup_key


def _contradicts_upstream() -> Any:
    """A final callback after a final look-up that said otherwise: upstream may have changed its mind.

    True at most once for each status, however many callbacks come.
    """
    said = EXCLUDED.callback_status
    return (
        _raises_callback()
        & _is_final(said)
        & _is_final(Task.lookup_status)
        & (said != Task.lookup_status)
        & (fn.COALESCE(Task.callback_status, PENDING) != said)
    )


def _is_final(status: Any) -> Any:
    # Not IN alone: with NULL it is NULL, and so is its negation.
    return fn.COALESCE(status, PENDING).in_(FINAL)


def _choose(condition: Any, column: Any) -> Any:
    return Case(None, [(condition, getattr(EXCLUDED, column.name))], column)


def _precedes(column: Any) -> Any:
    told = getattr(EXCLUDED, column.name)
    if on_postgresql() and isinstance(column, TextField):
        # PostgreSQL compares texts as its locale does; SQLite by their bytes, and so does "C".
        return told.collate('"C"') < column.collate('"C"')
    return told < column
