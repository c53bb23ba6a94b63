"""Keeps the ledger in order: learns paces, mends times of the future, and deletes what is old."""

import logging
import threading
from datetime import datetime, timedelta

from receiver.clock import Clock
from receiver.config import Settings
from receiver.ledger import counters, mending
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.mending_forwards import mend_forwards
from receiver.ledger.old import Old
from receiver.ledger.paces import Paces, learn
from receiver.ledger.pruning import prune_all
from receiver.ledger.reading import tally
from receiver.upstream.client import Upstream
from receiver.upstream.date import earlier_now, later_now

log = logging.getLogger(__name__)

TOTALS_BY_HOUR_FOR = timedelta(days=8)
TOTALS_BY_LENGTH_FOR = timedelta(days=2)
TOTALS_BY_SHARD_FOR = timedelta(hours=2)


def learn_paces(paces: Paces, clock: Clock) -> None:
    """Learn from new results how long tasks take."""
    try:
        learn(clock.now())
        paces.read()
    except DATABASE_ERRORS as problem:
        log.error("The database cannot be used, learning later: %s", describe(problem))


def mend_times(upstream: Upstream, clock: Clock) -> bool:
    """Undo what a reconciler did whose clock was ahead. Returns False where it is to be tried again soon."""
    now = later_now(clock.now(), upstream.compare_clocks())
    if now is None:
        log.info("No times are mended before upstream has told its time: this machine's clock may be behind.")
        return False
    try:
        mended = mending.mend_after_future(now)
        late = mend_forwards(now)
    except DATABASE_ERRORS as problem:
        log.error("The database cannot be used, wrong times are mended later: %s", describe(problem))
        return False
    if mended:
        log.warning("A reconciler ran while its clock was ahead. %d tasks are asked about again.", mended)
    if late:
        log.warning("A process told the app while its clock was ahead. %d forwards are due again.", late)
    return True


def prune_by(settings: Settings, upstream: Upstream, clock: Clock, stop: threading.Event) -> None:
    """Delete what is older than the settings say, by our clock and by upstream's."""
    now = earlier_now(clock.now(), upstream.compare_clocks())
    if now is None:
        log.info("Nothing is pruned before upstream has told its time: this machine's clock may be ahead.")
        return
    tasks = None if settings.task_retention is None else now - settings.task_retention
    prune_old_rows(Old(now - settings.retention, tasks), now, stop)


def prune_old_rows(old: Old, now: datetime, stop: threading.Event) -> None:
    """Delete what is old until `stop` is set, and join old totals."""
    try:
        deleted = prune_all(old, stop)
        tally.fold(now - TOTALS_BY_HOUR_FOR, now - TOTALS_BY_LENGTH_FOR, now - TOTALS_BY_SHARD_FOR)
        counters.fold()
    except DATABASE_ERRORS as problem:
        log.error("The database cannot be used, pruning later: %s", describe(problem))
        return
    if deleted.total():
        kinds = ", ".join(f"{number} {kind}" for kind, number in deleted.items() if number)
        log.info("Pruned %s.", kinds)
