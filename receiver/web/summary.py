"""The overview's first sentence: how things stand, told by severity. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from receiver.ledger.models import Pause, ReconcileRun
from receiver.web.wording import ago, counted, exact, shown

START_RECONCILER = "python -m reconcile"
_NOBODY_ASKS = "nobody asks about those that never come. Start it with"
_SILENT_AFTER_INTERVALS = 3
_SILENT_AFTER_AT_LEAST = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the summary is drawn from; counts are of the last 24 hours, but for `pending`."""

    now: datetime
    interval: timedelta  # between the starts of two runs
    newest_at: datetime | None  # when we last heard of a new task
    pending: int = 0
    oldest_pending_at: datetime | None = None
    expired: int = 0
    disputed: int = 0
    missed: int = 0  # their final callback never came, and they were recovered
    last_run: ReconcileRun | None = None
    last_asking_run: ReconcileRun | None = None  # the newest that called upstream
    reconciler_seen_at: datetime | None = None  # the latest thing a reconciler wrote
    pause: Pause | None = None  # in which upstream may not be asked

    @property
    def silent(self) -> bool:
        """Tell whether the reconciler should have been heard of since."""
        patience = self.interval * _SILENT_AFTER_INTERVALS + _SILENT_AFTER_AT_LEAST
        return self.reconciler_seen_at is not None and self.now - self.reconciler_seen_at > patience


@dataclass(frozen=True, slots=True)
class Summary:
    """How things stand. `severity` is well, busy, attention or trouble; `command` is what would help."""

    severity: str
    label: str
    text: str
    command: str | None = None


def summarise(facts: Facts) -> Summary:
    """Return how things stand: the worst that is the case."""
    summaries = (
        _reconciler_away(facts),
        _paused(facts),
        _last_run_failed(facts),
        _nothing_yet(facts),
        _unsettled(facts),
        _at_work(facts),
        _well(facts),
    )
    return next(summary for summary in summaries if summary)


def next_run(facts: Facts) -> str:
    """Return when the next run is due, or how long the reconciler has been overdue with it."""
    run = facts.last_run
    if run is None or facts.reconciler_seen_at is None:
        return "The reconciler has never run."
    if facts.silent:
        broken_off = "" if run.finished_at else " in the middle of a run"
        return f"Overdue: the reconciler has been silent{broken_off} since {exact(facts.reconciler_seen_at)}."
    if run.finished_at is None:
        return "A run is in progress."
    due_at = run.started_at + facts.interval
    soon = due_at - facts.now < timedelta(seconds=2)
    return "The next run is due now." if soon else f"The next run is due {ago(due_at, facts.now)}."


def _reconciler_away(facts: Facts) -> Summary | None:
    if facts.reconciler_seen_at is None:
        if facts.newest_at is None:
            text = "nothing has arrived yet, and the reconciler has never run. Start it with"
            return Summary("attention", "Almost ready", text, START_RECONCILER)
        return Summary(
            "trouble",
            "Trouble",
            f"callbacks are taken in, but the reconciler has never run: {_NOBODY_ASKS}",
            START_RECONCILER,
        )
    if not facts.silent:
        return None
    since = f"{exact(facts.reconciler_seen_at)} ({ago(facts.reconciler_seen_at, facts.now)})"
    text = f"the reconciler has not run since {since}. Callbacks are still taken in, but {_NOBODY_ASKS}"
    return Summary("trouble", "Trouble", text, START_RECONCILER)


def _paused(facts: Facts) -> Summary | None:
    pause = facts.pause
    if pause is None:
        return None
    waiting = f" {_are(facts.pending, 'waiting for a result')}." if facts.pending else ""
    since = f"since {exact(pause.started_at)} ({ago(pause.started_at, facts.now)})"
    why = f"“{shown(pause.reason).rstrip('.')}”"
    if not pause.account:
        return Summary("attention", "Attention", f"upstream wants no look-ups for a while: {why}.{waiting}")
    probe_at = pause.next_probe_at or facts.now
    probe = f"comes {ago(probe_at, facts.now)}" if probe_at > facts.now else "is due now"
    mend = f"Mend the account or the token; the next probe {probe}. Callbacks are still taken in."
    return Summary("trouble", "Trouble", f"upstream refuses look-ups {since}: {why}. {mend}{waiting}")


def _last_run_failed(facts: Facts) -> Summary | None:
    # The newest run that called: the idle ones that follow a failure have nothing to fail at.
    run = facts.last_asking_run
    if run is None or not run.error:
        return None
    when = ago(run.started_at, facts.now)
    waiting = f" {_are(facts.pending, 'waiting for a result')}." if facts.pending else ""
    if run.errors < run.calls:
        failed = f"{run.errors:,} of {counted(run.calls, 'call')} to upstream failed"
        return Summary("attention", "Attention", f"{failed} {when}: {_quoted(run)}{waiting}")
    severity, label = ("trouble", "Trouble") if facts.pending else ("attention", "Attention")
    return Summary(
        severity, label, f"the last run that asked upstream failed {when}: {_quoted(run)}{waiting}"
    )


def _nothing_yet(facts: Facts) -> Summary | None:
    if facts.newest_at is not None:
        return None
    return Summary("well", "Ready", "the reconciler runs, and nothing has arrived yet.")


def _unsettled(facts: Facts) -> Summary | None:
    parts = []
    if facts.expired:
        were = "was" if facts.expired == 1 else "were"
        expired = f"{counted(facts.expired, 'task')} {were} given up in the last 24 h"
        parts.append(f"{expired}: upstream gave no final answer.")
    if facts.disputed:
        disputed = f"{_are(facts.disputed, 'disputed')}: the Tasks API contradicts a callback"
        parts.append(f"{disputed}, or has not confirmed it in time.")
    if not parts:
        return None
    if facts.pending:
        parts.append(f"{_are(facts.pending, 'waiting for a result')}.")
    return Summary("attention", "Attention", " ".join(parts))


def _at_work(facts: Facts) -> Summary | None:
    if not facts.pending:
        return None
    text = _are(facts.pending, "waiting for a result")
    if facts.oldest_pending_at:
        text += f"; the oldest was heard of {ago(facts.oldest_pending_at, facts.now)}"
    missed = _missed(facts)
    return Summary("busy", "At work", f"{text}.{' In the last 24 h ' + missed if missed else ''}")


def _well(facts: Facts) -> Summary:
    quiet = facts.newest_at is None or facts.now - facts.newest_at > timedelta(hours=24)
    settled = "every task heard of in the last 24 h is settled."
    text = "every task is settled, and the last 24 h brought no new one." if quiet else settled
    return Summary("well", "All is well", f"{text} {_missed(facts)}".rstrip())


def _missed(facts: Facts) -> str:
    if not facts.missed:
        return ""
    recovered = "it was recovered" if facts.missed == 1 else "all were recovered"
    return f"{counted(facts.missed, 'callback')} never came; {recovered}."


def _are(count: int, state: str) -> str:
    return f"{counted(count, 'task')} {'is' if count == 1 else 'are'} {state}"


def _quoted(run: ReconcileRun) -> str:
    return f"“{shown(run.error).rstrip('.')}”."
