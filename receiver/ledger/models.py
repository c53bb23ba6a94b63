"""The rows: Task, Event, Tally, Delivery, Refusal, Lookup, ReconcileRun, Pause, Discovery.

Times are UTC without a zone, JSON is strict text.
"""

from datetime import datetime, timedelta

from peewee import (
    SQL,
    AutoField,
    BigAutoField,
    BigIntegerField,
    BlobField,
    BooleanField,
    DateTimeField,
    DoubleField,
    ForeignKeyField,
    IntegerField,
    Model,
    SmallIntegerField,
    TextField,
)

from receiver.ledger.engine.proxy import database as database
from receiver.upstream.results import FAILED, FINAL, PENDING, SUCCEEDED


class _Row(Model):
    class Meta:
        database = database
        legacy_table_names = False


class Task(_Row):
    """One unit of upstream work, as two witnesses tell of it: `callback_*` what callbacks say, `lookup_*`
    what the Tasks API says. Each holds the result with its greatest key (see `results.Result`).

    A `*_source` says who gave the fact beside it: 1 a registration, 2 a look-up, 3 a callback.
    """

    id = TextField(primary_key=True)
    service = TextField()  # one of `services.SERVICES`
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
    delivery_count = IntegerField(default=0)
    lookup_count = IntegerField(default=0)

    class Meta:
        table_name = "task"

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
        """How long its result took from its submission, as far as known; None without a result."""
        if self.settled_at is None:
            return None
        return max(self.settled_at - (self.submitted_at or self.created_at), timedelta(0))

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
for _named in (Task.ref, Task.trace_id):
    Task.add_index(
        Task.index(_named, Task.created_at, Task.id, name=f"task_{_named.name}", where=_named.is_null(False))
    )
Task.add_index(
    Task.index(Task.created_at, Task.id, Task.acknowledged_at, name="task_disputed", where=DISPUTED)
)


class Event(_Row):
    """What the customer's app is told about a task; see `ledger.outbox`. Triggers write it; it never changes.

    All that it says was true when the event happened. `confirmed` is what `Task.confirmed` was.
    """

    id = BigAutoField()  # never used again, not even that of a deleted event
    happened_at = DateTimeField()  # the `now` of the change, by the clock of the process that made it
    sequence = IntegerField()  # within the task, from 1; a status of before there were events counts as one
    confirmed = BooleanField(null=True)
    # No foreign key: the trigger has its task at hand, and PostgreSQL would look for it again.
    task_id = TextField()
    type = TextField()  # task.disputed, or task. and the status
    status = TextField()
    settled_by = TextField(null=True)

    class Meta:
        table_name = "event"


# Most tasks have one event, and that they have it can be told by their status: for speed no index holds it.
# A task that has expired may be opened again, as if nothing had been told.
REPEATED = SQL("(sequence > 1 OR type IN ('task.disputed', 'task.expired'))")
Event.add_index(Event.index(Event.task_id, Event.sequence, name="event_repeated", where=REPEATED))


class Tally(_Row):
    """How many tasks of one kind were first heard of in one hour; see `ledger.tally`. Triggers write it."""

    id = BigAutoField()
    hour = TextField()  # of Task.created_at, like 2026-01-31 12
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


Tally.add_index(
    Tally.index(
        Tally.hour,
        Tally.service,
        Tally.status,
        Tally.settled_by,
        Tally.missed,
        Tally.disputed,
        Tally.took,
        Tally.shard,
        name="tally_key",
        unique=True,
    )
)


class Delivery(_Row):
    """One callback as it came, kept whatever came of it. `task` is None where the body named none."""

    id = BigAutoField()
    uid = TextField(null=True, unique=True)  # ours; a delivery is kept once, whichever way it came here
    task = ForeignKeyField(Task, null=True, backref="+")
    received_at = DateTimeField(index=True)
    verdict = TextField()  # a status, or unreadable
    problem = TextField(null=True)  # why it is unreadable or shortened, as strict JSON {code, message}
    ref = TextField(null=True)
    remote_addr = TextField(null=True)
    headers = TextField()  # strict JSON [[name, value], ...]
    body = BlobField()  # verbatim; of one that is too large or shortened, its first bytes
    size = IntegerField()  # bytes received
    digest = BlobField()  # SHA-256 of the body, of a shortened one as it came
    token = SmallIntegerField(null=True)  # which of CALLBACK_TOKEN it came with, by position from 0

    # Not a column: what queries.deliveries_of() finds out when it reads.
    duplicate: bool = False

    class Meta:
        table_name = "delivery"


# When an older token was last used. Nearly all deliveries come with the first.
Delivery.add_index(
    Delivery.index(Delivery.token, Delivery.received_at, name="delivery_old_token", where=SQL("token > 0"))
)


# Lists of what could not be read. Few are, and others pay nothing for it.
UNREADABLE = SQL("verdict = 'unreadable'")
Delivery.add_index(
    Delivery.index(Delivery.received_at, Delivery.id, name="delivery_unreadable", where=UNREADABLE)
)


class Refusal(_Row):
    """How many requests to callback routes were not taken in within one hour; see `ledger.refusals`.

    Never a row a request: nobody can fill the ledger with them.
    """

    id = AutoField()
    kind = TextField()  # one of `refusals.KINDS`; `tried` for the row that trials of writes write
    hour = TextField()  # of `last_at`, like 2026-01-31 12
    requests = BigIntegerField()
    first_at = DateTimeField()
    last_at = DateTimeField(index=True)
    remote_addr = TextField(null=True)  # the last one's
    reason = TextField(null=True)  # the last one's

    class Meta:
        table_name = "refusal"


Refusal.add_index(Refusal.index(Refusal.kind, Refusal.hour, name="refusal_key", unique=True))


# A run that has written nothing for so long has died: longer than one call to upstream and a stop may take.
_SILENT_RUN = timedelta(minutes=3)


class ReconcileRun(_Row):
    """One pass of the reconciler. Counts are of tasks; `calls` and `errors` count calls to upstream.

    Each task that was asked about is in one of settled, confirmed, running, absent and `unanswered`.
    """

    id = BigAutoField()
    reconciler = TextField()  # host:pid
    started_at = DateTimeField(index=True)
    finished_at = DateTimeField(null=True)
    noted_at = DateTimeField(null=True)  # when its counts were last written while it was in progress
    due = IntegerField(default=0)
    asked = IntegerField(default=0)
    settled = IntegerField(default=0)
    confirmed = IntegerField(default=0)  # had their result already; upstream gave its final answer
    running = IntegerField(default=0)
    absent = IntegerField(default=0)
    calls = IntegerField(default=0)
    errors = IntegerField(default=0)
    error = TextField(null=True)  # the last one's message

    class Meta:
        table_name = "reconcile_run"

    @property
    def unanswered(self) -> int:
        """How many tasks it asked about in calls that failed."""
        return self.asked - self.settled - self.confirmed - self.running - self.absent

    @property
    def left(self) -> int:
        """How many of its due tasks it has not asked about: it asks about them yet, or gave them back."""
        return self.due - self.asked

    def is_in_progress(self, now: datetime) -> bool:
        """Tell whether it still runs, as far as one can see: its process may have been killed."""
        return self.finished_at is None and now - (self.noted_at or self.started_at) < _SILENT_RUN


# Most runs find nothing due and ask nothing. Upstream fails now and then: where it answers half of a run's
# calls, look-ups get through.
ASKED, ANSWERED = SQL("calls > 0"), SQL("calls > 0 AND errors * 2 <= calls")
for _name, _kind in (("asked", ASKED), ("answered", ANSWERED)):
    ReconcileRun.add_index(ReconcileRun.index(ReconcileRun.id, name=f"reconcile_run_{_name}", where=_kind))


class Lookup(_Row):
    """One question to the Tasks API about one task, and what came of it."""

    id = BigAutoField()
    task = ForeignKeyField(Task, backref="+")
    run = ForeignKeyField(ReconcileRun, null=True, backref="+", on_delete="SET NULL")
    asked_at = DateTimeField(index=True)
    answered_at = DateTimeField()
    verdict = TextField()  # a status, absent, or error
    progress = DoubleField(null=True)
    error = TextField(null=True)

    class Meta:
        table_name = "lookup"


class Pause(_Row):
    """A time in which upstream may not be asked, by any reconciler.

    With `account` until a probe finds out that the account works again, then `ended_at` is set; otherwise,
    as after a 429, until `ended_at`, which is known from the beginning.
    """

    id = AutoField()
    reason = TextField()
    account = BooleanField()
    started_at = DateTimeField()
    ended_at = DateTimeField(null=True, index=True)
    next_probe_at = DateTimeField(null=True)
    probes = IntegerField(default=0)

    class Meta:
        table_name = "pause"


# At most one open pause of the account, however many reconcilers run into it at once.
Pause.add_index(Pause.index(Pause.account, name="pause_open", unique=True, where=SQL("ended_at IS NULL")))


class Discovery(_Row):
    """How far a service's list of recent tasks has been searched for ours: one row a service.

    A discovery lists, newest first, the tasks submitted since `covered_to`. While one is in progress
    `window_end` is where it began, by upstream's clock, and `listed` how many tasks it is past.
    """

    id = AutoField()
    service = TextField(unique=True)
    covered_to = DateTimeField()  # everything submitted before it has been seen
    window_end = DateTimeField(null=True)
    listed = IntegerField(default=0)
    leased_until = DateTimeField(null=True)  # until then only who leased it goes on with it
    finished_at = DateTimeField(null=True)  # when a discovery last came to its end

    class Meta:
        table_name = "discovery"


MODELS = (Task, Event, Tally, Delivery, Refusal, ReconcileRun, Lookup, Pause, Discovery)
