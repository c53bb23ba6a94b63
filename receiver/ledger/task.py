"""The rows about a task: Task, Event, Tally; and the conditions on a task that indexes and queries share.

Times are UTC without a zone, JSON is strict text.
"""

from datetime import timedelta

from peewee import (
    SQL,
    BigAutoField,
    BigIntegerField,
    BlobField,
    BooleanField,
    DateTimeField,
    DoubleField,
    IntegerField,
    Model,
    SmallIntegerField,
    TextField,
)

from receiver.ledger.engine.proxy import database as database
from receiver.upstream.results import FAILED, FINAL, PENDING, SUCCEEDED


class Row(Model):
    """What all rows share: they are in the ledger's database."""

    class Meta:
        database = database
        legacy_table_names = False


class Task(Row):
    """One unit of upstream work, as two witnesses tell of it: `callback_*` what callbacks say, `lookup_*`
    what the Tasks API says. Each holds the result with its greatest key (see `results.Result`).

    A `*_source` says who gave the fact beside it: 1 a registration, 2 a look-up, 3 a callback.
    """

    id = TextField(primary_key=True)
    service = TextField()  # one of `services.SERVICES`
    service_source = SmallIntegerField(null=True)  # without one the service is assumed, unless NAMED
    status = TextField(default=PENDING)
    created_at = DateTimeField()  # when we first heard of it
    registered_at = DateTimeField(null=True)

    type = TextField(null=True)
    type_source = SmallIntegerField(null=True)
    ref = TextField(null=True)
    ref_source = SmallIntegerField(null=True)
    trace_id = TextField(null=True)
    trace_id_source = SmallIntegerField(null=True)
    request = TextField(null=True)
    request_source = SmallIntegerField(null=True)
    prompt = TextField(null=True)  # the request's, for lists and for searching
    mode = TextField(null=True)  # the request's, which tells how long the task takes
    submitted_at = DateTimeField(null=True)
    submitted_at_source = SmallIntegerField(null=True)
    finished_at = DateTimeField(null=True)

    callback_key = BlobField(default=b"")
    callback_status = TextField(null=True)
    callback_progress = DoubleField(null=True)
    callback_response = TextField(null=True)
    callback_error = TextField(null=True)
    lookup_key = BlobField(default=b"")
    lookup_status = TextField(null=True)
    lookup_progress = DoubleField(null=True)
    lookup_response = TextField(null=True)
    lookup_error = TextField(null=True)
    lookup_envelope = TextField(null=True)  # the fields of upstream's item beside its response and request

    settled_by = TextField(null=True)  # callback or lookup
    settled_at = DateTimeField(null=True)
    gave_up_at = DateTimeField(null=True)
    doubted_at = DateTimeField(null=True)  # upstream would not confirm in time what only a callback says
    acknowledged_at = DateTimeField(null=True)  # a person has seen the dispute and takes it as it is

    silent_since = DateTimeField()  # the give-up clock: first heard of, or last progress
    next_lookup_at = DateTimeField(null=True)  # when it is due; a claim moves it to when the lease lapses
    leased_until = DateTimeField(null=True)  # until then only who claimed it asks about it
    attempts = IntegerField(default=0)  # look-ups since the last sign of life; paces the backoff
    late_answers = SmallIntegerField(null=True)  # answers past the give-up time, without a final result
    refused_at = DateTimeField(null=True)  # upstream's last answer refused its id; it is asked apart
    last_lookup_error = TextField(null=True)
    looked_at = DateTimeField(null=True)  # the last look-up
    callback_url = TextField(null=True)  # where the caller wants the result posted
    api_key = TextField(null=True)  # the name of the key that it was submitted or registered with
    delivery_count = IntegerField(default=0)
    lookup_count = IntegerField(default=0)

    class Meta:
        table_name = "task"

    @property
    def service_is_assumed(self) -> bool:
        """Whether only callbacks have named the task, and none of them its service."""
        is_named = self.registered_at is not None or self.lookup_status is not None
        return self.service_source is None and not is_named

    @property
    def witness(self) -> str:
        """Return whose word counts, `lookup` or `callback`: a final look-up beats any callback."""
        if self.lookup_status in FINAL:
            return "lookup"
        return "callback" if self.callback_key >= self.lookup_key else "lookup"

    @property
    def progress(self) -> float | None:
        return self.lookup_progress if self.witness == "lookup" else self.callback_progress

    @property
    def response(self) -> str | None:
        return self.lookup_response if self.witness == "lookup" else self.callback_response

    @property
    def error(self) -> str | None:
        return self.lookup_error if self.witness == "lookup" else self.callback_error

    @property
    def took(self) -> timedelta | None:
        """How long its result took from its submission; None without a result or a known beginning."""
        began_at = self.submitted_at or self.registered_at
        if self.settled_at is None or began_at is None:
            return None
        return max(self.settled_at - began_at, timedelta(0))

    @property
    def confirmed(self) -> bool | None:
        """None until upstream has given a final answer; then whether no final callback contradicts it."""
        return None if self.lookup_status not in FINAL else not self.disputed

    @property
    def disputed(self) -> bool:
        """Whether a final callback contradicts upstream, or upstream does not confirm it in time."""
        doubted = self.doubted_at is not None and self.lookup_status not in FINAL
        return doubted or {self.callback_status, self.lookup_status} == {FAILED, SUCCEEDED}


# The same as Task.disputed, in SQL; the text is the index's condition too, so that lists can use the index.
DISPUTED = SQL(
    "((callback_status = 'failed' AND lookup_status = 'succeeded')"
    " OR (callback_status = 'succeeded' AND lookup_status = 'failed')"
    " OR (doubted_at IS NOT NULL AND COALESCE(lookup_status, 'pending') = 'pending'))"
)
# The same for disputes that a person has acknowledged, and for those that nobody has.
ACKNOWLEDGED = SQL(f"({DISPUTED.sql} AND acknowledged_at IS NOT NULL)")
UNACKNOWLEDGED = SQL(f"({DISPUTED.sql} AND acknowledged_at IS NULL)")
# Tasks without a result and with one. Literals, so that the planner sees which index serves; and NOT IN, for
# which none on the status can serve: SQLite without statistics would take that one and read all tasks.
OPEN = SQL("status NOT IN ('failed', 'succeeded')")
SETTLED = SQL("status NOT IN ('pending', 'expired')")

# Its final callback never came; a look-up found the result.
MISSED = SQL("settled_by = 'lookup' AND COALESCE(callback_status, 'pending') = 'pending'")

# A task is doubtful when only callbacks have named it, since anyone with the callback URL can name ids, or
# when upstream refuses its id, which spoils the call for all others in it. Such tasks are asked about apart.
NAMED = SQL("(registered_at IS NOT NULL OR lookup_status IS NOT NULL)")  # by a caller or by upstream
KNOWN = SQL(f"{NAMED.sql} AND refused_at IS NULL")
DOUBTFUL = SQL("((registered_at IS NULL AND lookup_status IS NULL) OR refused_at IS NOT NULL)")

for _name, _kind in (
    ("task_overdue", f"{OPEN.sql} AND {KNOWN.sql}"),
    ("task_unconfirmed", f"{SETTLED.sql} AND {KNOWN.sql}"),
    ("task_doubtful", DOUBTFUL.sql),
):
    _due = SQL(f"next_lookup_at IS NOT NULL AND {_kind}")
    Task.add_index(Task.index(Task.next_lookup_at, name=_name, where=_due))
Task.add_index(Task.index(Task.created_at, Task.id, name="task_newest"))
Task.add_index(Task.index(Task.status, Task.created_at, Task.id, name="task_status_newest"))
# With all that tells how long a recovery took.
Task.add_index(
    Task.index(Task.created_at, Task.id, Task.submitted_at, Task.settled_at, name="task_missed", where=MISSED)
)
# Only where there is one: SQLite writes the entry of a column anew when a statement could change it.
for _named in (Task.ref, Task.trace_id, Task.api_key):
    Task.add_index(
        Task.index(_named, Task.created_at, Task.id, name=f"task_{_named.name}", where=_named.is_null(False))
    )
Task.add_index(
    Task.index(Task.created_at, Task.id, Task.acknowledged_at, name="task_disputed", where=DISPUTED)
)


class Event(Row):
    """What happened to a task that the customer's app may be told; see `ledger.outbox`. Triggers write it.

    It never changes: all that it says was true when it happened. `confirmed` is what `Task.confirmed` was.
    """

    id = BigAutoField()  # never used again, not even that of a deleted event
    happened_at = DateTimeField()  # the `now` of the change, by the clock of the process that made it
    sequence = IntegerField()  # within the task, from 1; a status of before there were events counts as one
    confirmed = BooleanField(null=True)
    # No foreign key: the trigger has its task at hand, and PostgreSQL would look for it again.
    task_id = TextField()
    type = TextField()  # task.disputed, task.confirmed, or task. and the status
    status = TextField()
    settled_by = TextField(null=True)

    class Meta:
        table_name = "event"


# Most tasks have one event, and that they have it can be told by their status: for speed no index holds it.
# A task that has expired may be opened again, as if nothing had been told.
REPEATED = SQL("(sequence > 1 OR type IN ('task.disputed', 'task.expired'))")
Event.add_index(Event.index(Event.task_id, Event.sequence, name="event_repeated", where=REPEATED))


class Tally(Row):
    """How many tasks of one kind we first heard of in one hour; see `reading.tally`. Triggers write it."""

    id = BigAutoField()
    hour = TextField()  # of Task.created_at, like 2026-01-31 12; DELETED for tasks that have been deleted
    shard = IntegerField()  # which connection added to it; 0 on SQLite
    service = TextField()
    status = TextField()
    settled_by = TextField()  # empty where it is not settled
    missed = BooleanField()
    disputed = BooleanField()
    took = SmallIntegerField()  # from submission to result: the place in `tally.STEPS`; -1 without a result
    tasks = BigIntegerField()

    class Meta:
        table_name = "tally"


# Comes after all hours, so that nothing folds it into them.
DELETED = "deleted"
TALLY_KEY = (
    *(Tally.hour, Tally.service, Tally.status, Tally.settled_by, Tally.missed, Tally.disputed, Tally.took),
    Tally.shard,
)
Tally.add_index(Tally.index(*TALLY_KEY, name="tally_key", unique=True))
