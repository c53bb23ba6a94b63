"""The facts that the overview's notices are made from, and the notices' type. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from receiver.ledger.models import Pause, ReconcileRun
from receiver.ledger.reading.endpoints import ForwardFacts
from receiver.ledger.reading.standing import is_in_future, is_silent
from receiver.ledger.reading.tally import Outcomes
from receiver.ledger.refusals import Refused
from receiver.ledger.unclear import Unclear
from receiver.web.disk_room import Room
from receiver.web.formatting import ago, exact
from receiver.web.writes import Writes


@dataclass(frozen=True, slots=True)
class Missing:
    """How many of the settled tasks had no callback: of those first heard of lately, and before."""

    missed: int
    settled: int
    missed_before: int
    settled_before: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the summary depends on."""

    now: datetime
    interval: timedelta  # between the starts of two runs
    may_ask: bool = True  # whether ACEDATACLOUD_API_TOKEN is set
    newest_at: datetime | None = None  # when we last heard of a new task
    pending: int = 0
    oldest_pending_at: datetime | None = None
    last_day: Outcomes = field(default_factory=Outcomes)  # of the tasks first heard of in the last 24 hours
    last_day_began: datetime | None = None  # rounded to a whole hour, as tasks are counted by the hour
    given_up: int = 0  # in the last 24 hours
    given_up_known_since: datetime | None = None  # when we first heard of the oldest of these
    disputed: int = 0  # unacknowledged, of the tasks of the last 24 hours
    knows_none: bool = False  # upstream knew none of the tasks that we asked about lately
    slowest_recovery: timedelta | None = None  # in the last 24 hours
    last_run: ReconcileRun | None = None
    last_asking_run: ReconcileRun | None = None  # the newest that called upstream
    failing_runs: Sequence[ReconcileRun] = ()  # the first ones of the present failure
    reconciler_seen_at: datetime | None = None  # when a reconciler last wrote anything
    pause: Pause | None = None  # look-ups are paused
    paused_services: Sequence[Pause] = ()  # those of single services are paused
    clock_ahead: timedelta | None = None  # the reconciler's clock before upstream's; None if that is unknown
    spooled: int | None = 0  # deliveries that wait for the database; None if the spool is unusable
    set_aside: int = 0  # deliveries that the database refuses
    damaged: int = 0  # files of the spool with records that cannot be read
    writes: Writes = field(default_factory=Writes)  # whether callbacks can be stored now
    refused: Mapping[str, Refused] = field(default_factory=dict)  # in the last 24 hours, by kind
    forwards: ForwardFacts | None = None  # how the customer's app is told
    missing: Missing | None = None  # what share of callbacks never came
    room: Room | None = None  # on the disk to warn of first, of those that we write to
    unclear: Unclear | None = None  # submissions whose answer was lost

    @property
    def silent(self) -> bool:
        """Tell whether the reconciler has written nothing for too long."""
        return is_silent(self.reconciler_seen_at, self.interval, self.now)

    @property
    def seen_in_future(self) -> bool:
        """Tell whether the reconciler's last sign of life has a future time, which proves nothing."""
        return is_in_future(self.reconciler_seen_at, self.now)

    @property
    def reconciler_away(self) -> bool:
        """Tell whether apparently no reconciler runs."""
        return self.reconciler_seen_at is None or self.silent


@dataclass(frozen=True, slots=True)
class ListLink:
    """A link from a notice to the list of what it counts: tasks, or what another page lists."""

    words: str
    query: str
    page: str = "task_pages.show_list"


@dataclass(frozen=True, slots=True)
class Summary:
    """A notice on the overview. `severity` is well, busy, attention or trouble.

    `command` is a shell command that helps. `listed` has a link for each kind of thing that the text counts.
    `code` names a trouble for machines, see `troubles`; "" for a notice that is none.
    """

    severity: str
    label: str
    text: str
    command: str | None = None
    listed: Sequence[ListLink] = ()
    code: str = ""

    @property
    def with_command(self) -> str:
        """The text, and after it the command that helps."""
        return f"{self.text} {self.command}." if self.command else self.text


def since(moment: datetime, now: datetime) -> str:
    """Return the words for the start of a state: `since <moment> (<how long ago>)`."""
    return f"since {exact(moment)} ({ago(moment, now)})"
