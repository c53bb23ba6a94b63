"""The facts about the reconciler and about upstream, which it asks: its runs, its clock, and the pauses."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from receiver.ledger.models import ReconcileRun
from receiver.ledger.pauses import current_pause, paused_services
from receiver.ledger.reading import queries
from receiver.ledger.reading.standing import FAILING_AFTER_RUNS
from receiver.web.watch.facts import Facts

# The newest one may be in progress, and several reconcilers may run.
_RUNS_WITH_CLOCK = 4
_LATELY = timedelta(minutes=1)


def with_reconciler(known: Facts) -> Facts:
    """Add these facts."""
    runs, asking_runs = queries.list_runs(_RUNS_WITH_CLOCK), queries.list_runs(1, asked=True)
    return replace(
        known,
        last_run=runs[0] if runs else None,
        last_asking_run=asking_runs[0] if asking_runs else None,
        failing_runs=queries.failing_runs(FAILING_AFTER_RUNS),
        reconciler_seen_at=queries.reconciler_seen_at(known.now),
        pause=current_pause(known.now),
        paused_services=paused_services(known.now),
        clock_ahead=_clock_ahead(runs, known.now),
    )


def _clock_ahead(runs: Sequence[ReconcileRun], now: datetime) -> timedelta | None:
    """Return how far a reconciler's clock is ahead of upstream's: of several, the largest difference.

    The newest run counts, and others that began lately by upstream's clock.
    """
    known = [
        (run.started_at, timedelta(seconds=run.clock_ahead)) for run in runs if run.clock_ahead is not None
    ]
    lately = [ahead for started_at, ahead in known if now - (started_at - ahead) < _LATELY]
    return max(lately or [ahead for _, ahead in known[:1]], key=abs, default=None)
