"""What the overview's sentences are drawn from, and what they are. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from receiver.clock import SKEW
from receiver.ledger.models import Pause, ReconcileRun
from receiver.ledger.reading.tally import Outcomes
from receiver.ledger.refusals import Refused
from receiver.web.formatting import ago, exact
from receiver.web.writes import Writes

_SILENT_AFTER_INTERVALS = 3
_SILENT_AFTER_AT_LEAST = timedelta(seconds=30)  # a deployment takes so long


@dataclass(frozen=True, slots=True)
class Facts:
    """What the summary is drawn from."""

    now: datetime
    interval: timedelta  # between the starts of two runs
    may_ask: bool = True  # whether there is a token to ask upstream with
    newest_at: datetime | None = None  # when we last heard of a new task
    pending: int = 0
    oldest_pending_at: datetime | None = None
    last_day: Outcomes = field(default_factory=Outcomes)  # of the tasks first heard of in the last 24 hours
    last_day_began: datetime | None = None  # by the hours in which they are counted
    given_up: int = 0  # in the last 24 hours
    given_up_known_since: datetime | None = None  # when we first heard of the first of these
    disputed: int = 0  # of the tasks of the last 24 hours, not acknowledged
    knows_none: bool = False  # of the tasks it was asked about lately upstream knew none
    slowest_recovery: timedelta | None = None  # in the last 24 hours
    last_run: ReconcileRun | None = None
    last_asking_run: ReconcileRun | None = None  # the newest that called upstream
    failing_runs: Sequence[ReconcileRun] = ()  # the first since upstream last answered half of the calls
    reconciler_seen_at: datetime | None = None  # the latest thing a reconciler wrote
    pause: Pause | None = None  # in which upstream may not be asked
    spooled: int | None = 0  # deliveries that wait for the database; None when the spool cannot be used
    set_aside: int = 0  # deliveries that the database refuses
    writes: Writes = field(default_factory=Writes)  # whether callbacks can be kept now
    refused: Mapping[str, Refused] = field(default_factory=dict)  # in the last 24 hours, by kind

    @property
    def silent(self) -> bool:
        """Tell whether the reconciler should have been heard of since."""
        patience = self.interval * _SILENT_AFTER_INTERVALS + _SILENT_AFTER_AT_LEAST
        if self.reconciler_seen_at is None:
            return False
        return self.seen_in_future or self.now - self.reconciler_seen_at > patience

    @property
    def seen_in_future(self) -> bool:
        """Tell whether the reconciler was last heard of at a time that has not come: that says nothing."""
        return self.reconciler_seen_at is not None and self.reconciler_seen_at > self.now + SKEW

    @property
    def reconciler_away(self) -> bool:
        """Tell whether no reconciler runs, as far as one can see."""
        return self.reconciler_seen_at is None or self.silent


@dataclass(frozen=True, slots=True)
class Listed:
    """A link to the list of some tasks that a summary speaks of: its words, and the query of the list."""

    words: str
    query: str


@dataclass(frozen=True, slots=True)
class Summary:
    """One thing that is the case. `severity` is well, busy, attention or trouble.

    `command` is what would help. `listed` has a link for each kind of tasks that the text counts.
    """

    severity: str
    label: str
    text: str
    command: str | None = None
    listed: Sequence[Listed] = ()


def since(moment: datetime, now: datetime) -> str:
    """Return since when something is the case."""
    return f"since {exact(moment)} ({ago(moment, now)})"
