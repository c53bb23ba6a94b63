"""The rows about what the customer's app is told: Endpoint, Forward, Attempt, Resending."""

from datetime import datetime
from typing import Literal

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

from receiver.clock import to_unix
from receiver.ledger.task import Row

# What becomes of a forward. `held` is a pending one whose endpoint is held or no longer configured.
# A `resent` one was given up, and a person has sent its event again by another forward.
WAITING, DELIVERED, GIVEN_UP, RESENT, DISMISSED = "pending", "delivered", "failed", "resent", "dismissed"
HELD = "held"
HeldBecause = Literal["person", "gone", "failing"]


class Endpoint(Row):
    """Where events go: an address in FORWARD_URL, or a server that callback URLs of tasks lead to."""

    id = AutoField()
    url = TextField()  # of a server its origin, like https://app.example.com:443
    is_app = BooleanField()  # it is in FORWARD_URL
    host = TextField()  # host:port; the attempts at once are bounded for each
    created_at = DateTimeField()
    retired_at = DateTimeField(null=True)  # since when FORWARD_URL no longer names it
    failing_since = DateTimeField(null=True)  # the first failure after the last success
    succeeded_at = DateTimeField(null=True)  # the last success
    failed_at = DateTimeField(null=True)  # the last failure
    failure = TextField(null=True)  # what it was
    held_at = DateTimeField(null=True)  # since when nothing is sent there, except for probes
    held_because = TextField(null=True)
    probe_at = DateTimeField(null=True)  # when one forward is tried although it is held; never for a person
    held_seconds = DoubleField(default=0)  # how long it was held or retired before, altogether

    class Meta:
        table_name = "endpoint"
        indexes = ((("is_app", "url"), True),)

    @property
    def is_open(self) -> bool:
        return self.held_at is None and self.retired_at is None

    def held_seconds_by(self, moment: datetime) -> float:
        """Return for how long, altogether, it was held or retired by a moment: time that does not count."""
        since = min((at for at in (self.held_at, self.retired_at) if at is not None), default=moment)
        return self.held_seconds + max((moment - since).total_seconds(), 0)


class Forward(Row):
    """One event due to one endpoint. Its event, sequence, type and body never change."""

    id = BigAutoField()
    endpoint = ForeignKeyField(Endpoint, backref="+", index=False)
    event = BigIntegerField(null=True)  # its number; None where the result was known before the URL
    task_id = TextField()
    sequence = IntegerField()
    type = TextField()  # task.succeeded, task.failed, task.expired or task.disputed
    happened_at = DateTimeField()
    url = TextField(null=True)  # the task's own callback URL; None for an endpoint in FORWARD_URL
    body = BlobField()  # as it is posted, compressed by zlib
    status = TextField(default=WAITING)
    created_at = DateTimeField()
    # The first forward of the event, which a person sent again by this one.
    resends = BigIntegerField(null=True)
    resent_at = DateTimeField(null=True)  # when a person sent its event again, by another forward
    pushed = BooleanField(default=False)  # a person wants it sent at once, even if its endpoint is held
    next_attempt_at = DateTimeField(null=True)  # of a pending one; a claim moves it to when the lease lapses
    leased_until = DateTimeField(null=True)
    attempts = IntegerField(default=0)
    counted = SmallIntegerField(default=0)  # those that pace the next one
    began_at = DateTimeField(null=True)  # the first attempt
    held_before = DoubleField(default=0)  # how long the endpoint had been held by then, altogether
    ended_at = DateTimeField(null=True)
    cause = TextField(null=True)  # what the last failed attempt failed of, in a few words that group them

    class Meta:
        table_name = "forward"

    @property
    def state(self) -> str:
        """Return what people see as its status: its own, or `held`."""
        return HELD if self.status == WAITING and not self.endpoint.is_open else self.status

    @property
    def message_id(self) -> str:
        """Return the webhook-id: the same for all attempts, and when it is sent again.

        Numbers are given again once a ledger was restored, and on SQLite once all rows were pruned. An app
        must not take such a forward for one that it has dealt with. So the event's second is part of it.
        """
        return f"msg_{self.resends or self.id}_{int(to_unix(self.happened_at))}"


# SQLite has no statistics to choose an index by. It would take that on the status where it can, which holds
# every pending forward: so some conditions say it in a way that no index on the status serves.
PENDING_FORWARD = SQL("status = 'pending'")
Forward.add_index(
    Forward.index(
        Forward.endpoint, Forward.next_attempt_at, Forward.id, name="forward_due", where=PENDING_FORWARD
    )
)
# Never tried, and not sent again by a person; in flight.
FRESH = SQL("status = 'pending' AND attempts = 0 AND resends IS NULL")
LEASED = SQL("leased_until IS NOT NULL")
# By time, and not by number alone: for that PostgreSQL may read its primary key backwards.
Forward.add_index(
    Forward.index(Forward.endpoint, Forward.created_at, Forward.id, name="forward_fresh", where=FRESH)
)
Forward.add_index(Forward.index(Forward.leased_until, name="forward_leased", where=LEASED))
Forward.add_index(Forward.index(Forward.task_id, Forward.endpoint, Forward.id, name="forward_task"))
# An event is dealt to an endpoint once, whoever deals it.
Forward.add_index(
    Forward.index(
        Forward.endpoint,
        Forward.task_id,
        Forward.sequence,
        name="forward_once",
        unique=True,
        where=SQL("resends IS NULL"),
    )
)
Forward.add_index(
    Forward.index(
        Forward.status, Forward.created_at, Forward.id, Forward.endpoint, name="forward_status_newest"
    )
)
# An endpoint's oldest pending forward, and its newest ones.
Forward.add_index(Forward.index(Forward.endpoint, Forward.id, name="forward_waiting", where=PENDING_FORWARD))
PUSHED = SQL("pushed")
Forward.add_index(
    Forward.index(Forward.endpoint, Forward.next_attempt_at, Forward.id, name="forward_pushed", where=PUSHED)
)
IS_RESENDING = SQL("resends IS NOT NULL")
Forward.add_index(Forward.index(Forward.resends, Forward.id, name="forward_resends", where=IS_RESENDING))


class Attempt(Row):
    """One HTTP request of a forward, with what was sent and answered."""

    id = BigAutoField()
    forward = ForeignKeyField(Forward, backref="+", on_delete="CASCADE")
    began_at = DateTimeField()
    took = DoubleField()  # seconds
    url = TextField()
    headers = TextField()  # as they were sent, strict JSON {name: value}
    kind = TextField()  # see `forward.attempt.Kind`
    status = SmallIntegerField(null=True)
    answer = BlobField()  # its first bytes
    error = TextField(null=True)

    class Meta:
        table_name = "attempt"


class Resending(Row):
    """A person's order to send again all forwards that a filter holds, some each second."""

    id = AutoField()
    created_at = DateTimeField()
    wanted = TextField()  # the filter, strict JSON; see `reading.forwards`
    rate = DoubleField()  # forwards a second
    total = IntegerField()  # how many the filter held at the time
    up_to = BigIntegerField()  # the greatest number of a forward at the time
    done = IntegerField(default=0)  # how many were sent again
    reached_at = DateTimeField(null=True)  # `created_at` of the last one that was looked at
    reached = BigIntegerField(default=0)  # its number
    next_at = DateTimeField()  # when the next one may be sent again
    ended_at = DateTimeField(null=True)
    stopped_at = DateTimeField(null=True)  # by a person

    class Meta:
        table_name = "resending"


OPEN_RESENDING = SQL("ended_at IS NULL")
Resending.add_index(Resending.index(Resending.next_at, name="resending_open", where=OPEN_RESENDING))
