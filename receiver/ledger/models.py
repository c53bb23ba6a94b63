"""All rows: those about a task (`task`), Delivery, Refusal, and those of the reconciler.

Times are UTC without a zone, JSON is strict text.
"""

import json
from datetime import datetime, timedelta
from typing import NamedTuple

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
    SmallIntegerField,
    TextField,
)

from receiver.ledger.engine.proxy import database as database
from receiver.ledger.forward import Attempt as Attempt
from receiver.ledger.forward import Endpoint as Endpoint
from receiver.ledger.forward import Forward as Forward
from receiver.ledger.forward import Resending as Resending
from receiver.ledger.submission import Submission as Submission
from receiver.ledger.task import ACKNOWLEDGED as ACKNOWLEDGED
from receiver.ledger.task import DELETED as DELETED
from receiver.ledger.task import DISPUTED as DISPUTED
from receiver.ledger.task import DOUBTFUL as DOUBTFUL
from receiver.ledger.task import KNOWN as KNOWN
from receiver.ledger.task import MISSED as MISSED
from receiver.ledger.task import NAMED as NAMED
from receiver.ledger.task import OPEN as OPEN
from receiver.ledger.task import REPEATED as REPEATED
from receiver.ledger.task import SETTLED as SETTLED
from receiver.ledger.task import TALLY_KEY as TALLY_KEY
from receiver.ledger.task import UNACKNOWLEDGED as UNACKNOWLEDGED
from receiver.ledger.task import Event as Event
from receiver.ledger.task import Row
from receiver.ledger.task import Tally as Tally
from receiver.ledger.task import Task as Task
from receiver.ledger.watched import Counter as Counter
from receiver.ledger.watched import Incident as Incident


class Reading(NamedTuple):
    """How a delivery was read: its verdict, what was wrong with it, and the task that it names."""

    verdict: str
    problem: str | None
    task_id: str | None


class Delivery(Row):
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
    service = TextField(null=True)  # the one that its URL named, also an unknown one
    reread_at = DateTimeField(null=True)  # when it was last read again; see `ledger.rereading`
    # How it was read when it came, if it is read differently now: strict JSON {verdict, problem, task_id}.
    first_reading = TextField(null=True)

    # Not a column: what queries.deliveries_of() finds out when it reads.
    duplicate: bool = False

    class Meta:
        table_name = "delivery"

    @property
    def read_at_first(self) -> Reading:
        """How it was read when it came."""
        if self.first_reading is None:
            return self.reading
        return Reading(**json.loads(self.first_reading))

    @property
    def reading(self) -> Reading:
        """How it was read the last time."""
        return Reading(self.verdict, self.problem, self.task_id)  # type: ignore[attr-defined]  # not in the stubs


# When an older token was last used. Nearly all deliveries come with the first.
Delivery.add_index(
    Delivery.index(Delivery.token, Delivery.received_at, name="delivery_old_token", where=SQL("token > 0"))
)


# Lists of what could not be read. Few are, and others pay nothing for it.
UNREADABLE = SQL("verdict = 'unreadable'")
Delivery.add_index(
    Delivery.index(Delivery.received_at, Delivery.id, name="delivery_unreadable", where=UNREADABLE)
)


class Refusal(Row):
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


class ReconcileRun(Row):
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
    clock_ahead = IntegerField(null=True)  # seconds: of the reconciler's clock before upstream's

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


class Lookup(Row):
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


class Pause(Row):
    """A time in which upstream may not be asked, by any reconciler: about one service, or about any.

    With `account` until a probe finds out that upstream answers again, then `ended_at` is set; otherwise,
    as after a 429, until `ended_at`, which is known from the beginning.
    """

    id = AutoField()
    reason = TextField()
    service = TextField(default="")  # empty: all services
    account = BooleanField()
    started_at = DateTimeField()
    ended_at = DateTimeField(null=True, index=True)
    next_probe_at = DateTimeField(null=True)
    probes = IntegerField(default=0)

    class Meta:
        table_name = "pause"


# At most one open pause of all services and one of each, however many reconcilers run into it at once.
Pause.add_index(
    Pause.index(Pause.account, Pause.service, name="pause_open", unique=True, where=SQL("ended_at IS NULL"))
)


class Discovery(Row):
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


class LearnedPace(Row):
    """How long tasks of one kind take; see `ledger.pace`."""

    id = AutoField()
    service = TextField()
    type = TextField()  # "" for all types
    mode = TextField()  # "" for all modes
    weights = TextField()  # strict JSON, a number for each of `pace.BOUNDS`
    learned_at = DateTimeField()

    class Meta:
        table_name = "learned_pace"
        indexes = ((("service", "type", "mode"), True),)


class Reader(Row):
    """How far a reader of the outbox has come."""

    name = TextField(primary_key=True)
    event = BigIntegerField()  # the last one it has read; 0 for none

    class Meta:
        table_name = "reader"


class ReceiverReturn(Row):
    """How often the receiver has come back after it was away: one row. See `ledger.returns`."""

    id = AutoField()
    times = BigIntegerField()
    followed = BigIntegerField()  # a discovery has begun and ended since it came back so often

    class Meta:
        table_name = "receiver_return"


MODELS = (
    *(Task, Event, Tally, Delivery, Refusal, ReconcileRun, Lookup, Pause, Discovery, LearnedPace, Reader),
    *(ReceiverReturn, Endpoint, Forward, Attempt, Resending, Submission, Incident, Counter),
)
