"""`--once`: one run for cron, which also tells the app what is due, prunes, and ends."""

import contextlib
import random
import sys
import threading
from functools import partial

from receiver.clock import Clock, utcnow
from receiver.config import Settings
from receiver.ledger.pauses import pauses_in_force
from receiver.ledger.reading import queries
from receiver.upstream.client import Upstream
from reconcile.counts import Counts
from reconcile.forward import Forwarder, sender_for
from reconcile.heartbeat import Heartbeat
from reconcile.pacemaker import SteadyClock
from reconcile.run import Reconciler
from reconcile.single import caller_for, exit_code_of, learned_paces, stop_on_signal
from reconcile.upkeep import mend_times, prune_by

# An app that hangs, or a backlog, must not keep the next run waiting.
TELL_FOR_SECONDS = 60.0


def run_once(settings: Settings, upstream: Upstream) -> int:
    """Do one run, print what came of it, and return the exit code."""
    return exit_code_of(partial(_run, settings, upstream, stop_on_signal()), "run")


def _run(settings: Settings, upstream: Upstream, stop: threading.Event) -> int:
    clock = Clock()
    caller = caller_for(settings, upstream, clock, settings.reconcile_concurrency)
    mend_times(upstream, clock)
    paces = learned_paces(settings)
    reconciler = Reconciler(settings, caller, paces, SteadyClock(clock), random.Random(), stop)
    counts = reconciler.run(due_by=clock.now())
    unanswered = _unanswered(counts)
    with contextlib.closing(sender_for(settings)) as sender:
        if reconciler.was_good:
            _beat(Heartbeat(settings.heartbeat_url, sender, clock))
        Forwarder(settings, sender, clock, random.Random(), stop).run(TELL_FOR_SECONDS)
    prune_by(settings, upstream, clock, stop)
    print(counts)
    if unanswered:
        print(f"Nothing was asked: {unanswered}", file=sys.stderr)
    return 1 if counts.error or unanswered else 0


def _beat(heartbeat: Heartbeat) -> None:
    heartbeat.beat()
    heartbeat.wait()


def _unanswered(counts: Counts) -> str | None:
    """Return why a run asked nothing although tasks wait for an answer; None if nothing is wrong."""
    if counts.calls or counts.error:
        return None
    now = utcnow()
    pause = next(iter(pauses_in_force(now)), None)
    waiting = queries.earliest_waiting(failed_only=pause is None)
    if waiting is None:
        return None
    if pause:
        about = f" about {pause.service}" if pause.service else ""
        return f"asking{about} is paused, and tasks wait for an answer: {pause.reason}"
    due_in = max(((waiting.next_lookup_at or now) - now).total_seconds(), 0)
    why = f"upstream's last answer was an error: {waiting.last_lookup_error}"
    return f"tasks wait for an answer, the next is asked about in {due_in:.0f} s; {why}"
