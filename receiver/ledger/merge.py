"""Merges evidence about tasks with what is known, in one upsert.

A row of evidence is a row of `task` that holds only what one registration, callback or look-up says. The
database merges it with the known row in the statement that writes, so that two processes which learn of one
task at the same moment cannot overwrite each other. A task has two sorts of columns:

- Columns that depend only on what was said, not on the order or on repetitions. A witness keeps the testimony
  with the greatest key. The envelope goes with a look-up's testimony. A fact keeps the value of its best
  source, and of several values from that source the smallest; `prompt` and `mode` go with `request`.
  `registered_at` and `finished_at` keep the earliest time, `callback_url` and `api_key` the smallest.
  `status` follows from both witnesses and `gave_up_at`: see `_settlement`.
- Columns that depend on the order of arrival: `service`, `created_at`, `settled_by`, `settled_at`,
  `gave_up_at`, `doubted_at`, `acknowledged_at`, `refused_at`, `last_lookup_error`, `looked_at`, the counts,
  and everything that schedules look-ups.

See "Two witnesses" in docs/design.md.
"""

from collections.abc import Sequence
from typing import Any

from peewee import EXCLUDED, SQL, Case, Insert, TextField, fn

from receiver.ledger.engine.db import on_postgresql
from receiver.ledger.engine.statements import Row
from receiver.ledger.kinds import BY_CALLBACK, Kind, Witness
from receiver.ledger.models import Task
from receiver.upstream.results import EXPIRED, FINAL, PENDING

Assignments = dict[Any, Any]  # peewee fields and the expressions that become their values

# The columns in which each witness testifies, as `callback_key` and `lookup_key`.
_TESTIMONY = ("key", "status", "progress", "response", "error")
_OF_REQUEST = (Task.prompt, Task.mode)


def merge(kind: Kind, rows: Sequence[Row]) -> Insert:
    """Return the upsert that merges rows of one kind with what is known.

    `rows` has at most one row for each task, in id order, so that two writers cannot deadlock. Raises
    ValueError for a row of another kind.
    """
    for row in rows:
        if row.keys() != kind.columns:
            raise ValueError(f"not a row of its kind: {', '.join(sorted(row.keys() ^ kind.columns))}")
    return Task.insert_many(rows).on_conflict(conflict_target=[Task.id], update=assignments(kind))


def assignments(kind: Kind) -> Assignments:
    """Return how rows of the kind change what is known. Columns without an assignment stay as they are."""
    joined = _facts(kind)
    if "service_source" in kind.columns:
        joined |= _service(kind)
    if kind.witness:
        joined |= _testimony(kind.witness, kind.rereads) | _settlement(kind.witness)
    if kind.schedule:
        joined |= _schedule_of_callback() if kind.schedule == "callback" else _schedule_of_lookup()
    return joined


def _service(kind: Kind) -> Assignments:
    """Let a told service replace an assumed one, and let a caller or upstream overrule a callback URL.

    Otherwise the first one stays. A look-up that found nothing moves an assumed one on.
    """
    is_unnamed = Task.registered_at.is_null() & Task.lookup_status.is_null()
    is_assumed = Task.service_source.is_null() & is_unnamed
    is_hinted = (Task.service_source == BY_CALLBACK) & is_unnamed
    told = EXCLUDED.service_source
    replaces = (is_assumed & told.is_null(False)) | (is_hinted & (told < BY_CALLBACK))
    moves = is_assumed if kind.searches else replaces
    return {
        Task.service: _choose(replaces | moves, Task.service),
        Task.service_source: _choose(replaces, Task.service_source),
    }


def insert_new(rows: Sequence[Row]) -> Insert:
    """Return the statement that inserts those of `rows` whose tasks are new. They must be in id order."""
    return Task.insert_many(rows).on_conflict_ignore()


def _schedule_of_callback() -> Assignments:
    """A callback that adds something reschedules the next look-up. A repeated one does not.

    One that contradicts upstream's final answer makes the task due once more, at once. So does one that
    contradicts an earlier callback about a task that is no longer asked about: either may be forged.
    """
    adds = _raises("callback") & ~_is_final(Task.lookup_status)
    next_lookup_at = [
        (adds | _contradicts_callback(), EXCLUDED.next_lookup_at),
        (_contradicts_upstream(), EXCLUDED.silent_since),  # now
    ]
    return {
        Task.next_lookup_at: Case(None, next_lookup_at, Task.next_lookup_at),
        Task.attempts: _choose(adds, Task.attempts),
        Task.silent_since: _choose(adds, Task.silent_since),
        Task.delivery_count: Task.delivery_count + EXCLUDED.delivery_count,
    }


def _schedule_of_lookup() -> Assignments:
    """A look-up schedules the next one, unless that was rescheduled after the lease was taken."""
    leased = Task.next_lookup_at == EXCLUDED.leased_until
    gives_up = leased & EXCLUDED.gave_up_at.is_null(False)
    final = _is_final(EXCLUDED.lookup_status)
    # A callback that came after we asked, and that says otherwise, keeps the task due.
    ends = final & (
        leased | ~_is_final(Task.callback_status) | (Task.callback_status == EXCLUDED.lookup_status)
    )
    return {
        Task.next_lookup_at: Case(
            None, [(ends, SQL("NULL")), (leased, EXCLUDED.next_lookup_at)], Task.next_lookup_at
        ),
        Task.leased_until: _end_of_lease(),
        Task.attempts: _choose(leased, Task.attempts),
        Task.silent_since: _choose(_has_later_sign_of_life(), Task.silent_since),
        Task.gave_up_at: _choose(gives_up & Task.gave_up_at.is_null(), Task.gave_up_at),
        Task.status: Case(
            None,
            [(gives_up & (Task.status == PENDING) & ~final, EXPIRED)],
            _settlement("lookup")[Task.status],
        ),
        Task.doubted_at: _choose(leased & Task.doubted_at.is_null(), Task.doubted_at),
        Task.late_answers: _choose(leased, Task.late_answers),
        Task.refused_at: _choose(leased, Task.refused_at),
        Task.last_lookup_error: EXCLUDED.last_lookup_error,
        Task.looked_at: EXCLUDED.looked_at,
        Task.lookup_count: Task.lookup_count + EXCLUDED.lookup_count,
    }


def _has_later_sign_of_life() -> Any:
    # One from the future was dated by a clock that was ahead: the give-up clock would wait for it.
    return (EXCLUDED.silent_since > Task.silent_since) | (Task.silent_since > EXCLUDED.created_at)


def _end_of_lease() -> Any:
    # End our own lease only: a process that comes late must not end another's.
    return Case(None, [(Task.leased_until == EXCLUDED.leased_until, SQL("NULL"))], Task.leased_until)


def _testimony(witness: Witness, rereads: bool) -> Assignments:
    raises = _raises(witness)
    if rereads:
        raises |= getattr(EXCLUDED, f"{witness}_key") == getattr(Task, f"{witness}_key")
    columns = (getattr(Task, f"{witness}_{name}") for name in _TESTIMONY)
    told = {column: _choose(raises, column) for column in columns}
    if witness == "lookup":
        told[Task.lookup_envelope] = _choose(raises | _is_same_with_smaller_envelope(), Task.lookup_envelope)
    # A person acknowledged what both witnesses said at the time. Once one of them changes its status, the
    # acknowledgement is void.
    before, after = (fn.COALESCE(getattr(row, f"{witness}_status"), PENDING) for row in (Task, EXCLUDED))
    void = (raises & (before != after), SQL("NULL"))
    return {**told, Task.acknowledged_at: Case(None, [void], Task.acknowledged_at)}


def _is_same_with_smaller_envelope() -> Any:
    """Tell whether a look-up brings the known result in another envelope: of several the smallest is kept."""
    is_same = EXCLUDED.lookup_key == Task.lookup_key
    return is_same & (Task.lookup_envelope.is_null() | _precedes(Task.lookup_envelope))


def _facts(kind: Kind) -> Assignments:
    joined: Assignments = {}
    for fact in (getattr(Task, name) for name in kind.facts):
        source = getattr(Task, f"{fact.name}_source")
        told_source = getattr(EXCLUDED, source.name)
        # A fact that the row does not tell has a NULL source, and no comparison with NULL is true.
        better = source.is_null() | (told_source < source) | ((told_source == source) & _precedes(fact))
        for column in (fact, source, *(_OF_REQUEST if fact is Task.request else ())):
            joined[column] = _choose(told_source.is_null(False) & better, column)
    for column in (getattr(Task, name) for name in kind.smallest):
        joined[column] = _choose(column.is_null() | _precedes(column), column)
    return joined


def _settlement(witness: Witness) -> Assignments:
    """Settle a task by a final result that raises its witness. A final look-up beats any callback.

    So `status` does not depend on what came first: it is upstream's final status if there is one, else that
    of callbacks, else `pending`, or `expired` once the task was given up. A final result settles an expired
    task too. `settled_by` and `settled_at` change only when `status` does: they tell which witness was the
    first to say the present status. They stay when the other witness confirms it.
    """
    settles = _raises(witness) & _is_final(getattr(EXCLUDED, f"{witness}_status"))
    if witness == "callback":
        settles &= ~_is_final(Task.lookup_status)
    changes = settles & (EXCLUDED.status != Task.status)
    return {column: _choose(changes, column) for column in (Task.status, Task.settled_by, Task.settled_at)}


def _raises(witness: Witness) -> Any:
    """Tell whether the row says more than its witness has said before. Repetitions and stragglers do not."""
    return getattr(EXCLUDED, f"{witness}_key") > getattr(Task, f"{witness}_key")


def _contradicts_upstream() -> Any:
    """Tell whether a final callback contradicts upstream's final answer: upstream may have changed its mind.

    True at most once for each status, however many callbacks come.
    """
    said = EXCLUDED.callback_status
    return (
        _raises("callback")
        & _is_final(said)
        & _is_final(Task.lookup_status)
        & (said != Task.lookup_status)
        & (fn.COALESCE(Task.callback_status, PENDING) != said)
    )


def _contradicts_callback() -> Any:
    """Tell whether a final callback contradicts an earlier one, while upstream has not said which is right.

    Only where no look-up is planned: the next one tells.
    """
    before, said = Task.callback_status, EXCLUDED.callback_status
    is_open = ~_is_final(Task.lookup_status) & Task.next_lookup_at.is_null()
    return is_open & _is_final(before) & _is_final(said) & (before != said)


def _is_final(status: Any) -> Any:
    # IN alone would not do: NULL IN (...) is NULL, and so is its negation.
    return fn.COALESCE(status, PENDING).in_(FINAL)


def _choose(condition: Any, column: Any) -> Any:
    return Case(None, [(condition, getattr(EXCLUDED, column.name))], column)


def _precedes(column: Any) -> Any:
    told = getattr(EXCLUDED, column.name)
    if on_postgresql() and isinstance(column, TextField):
        # PostgreSQL compares texts by its locale, SQLite by their bytes. The collation "C" is by bytes too.
        return told.collate('"C"') < column.collate('"C"')
    return told < column
