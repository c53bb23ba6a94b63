"""Gathers the facts that the notices are made from: one source for the overview, /readyz and the alerts."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from receiver.config import Settings
from receiver.ledger.reading import tally
from receiver.ledger.reading.endpoints import forward_facts
from receiver.ledger.reading.tally import Outcomes
from receiver.ledger.unclear import unclear_facts
from receiver.web.intake import REFUSED_TOLD_FOR, Intake
from receiver.web.watch.facts import Facts
from receiver.web.watch.reconciler_facts import with_reconciler
from receiver.web.watch.rooms import tightest_room
from receiver.web.watch.task_facts import WEEK, with_tasks
from receiver.web.writes import Writes


def gather_facts(now: datetime, settings: Settings, intake: Intake, writes: Writes) -> Facts:
    """Return the facts of this moment. It reads the ledger."""
    week = tally.count_by_hour(now - WEEK, now)
    return facts_of(now, settings, intake, writes, week, tally.count_outcomes().pending)


def facts_without_ledger(now: datetime, settings: Settings, intake: Intake, writes: Writes) -> Facts:
    """Return the facts of this moment that are known while the ledger cannot be read."""
    refused = intake.refused.unrecorded()
    return Facts(
        now=now,
        interval=settings.reconcile_interval,
        spooled=intake.spool.depth(),
        set_aside=intake.spool.set_aside(),
        damaged=intake.spool.damaged(),
        writes=intake.corrected(writes, refused),
        refused=refused,
        room=tightest_room(settings),
    )


def facts_of(
    now: datetime,
    settings: Settings,
    intake: Intake,
    writes: Writes,
    week: Mapping[datetime, Outcomes],
    pending: int,
) -> Facts:
    """Return the facts of this moment, with counts by hour and of open tasks that were read before."""
    known = facts_without_ledger(now, settings, intake, writes)
    refused = intake.refused_since(now - REFUSED_TOLD_FOR)
    return replace(
        with_reconciler(with_tasks(known, week, pending)),
        may_ask=settings.api_token is not None,
        writes=intake.corrected(writes, refused),
        refused=refused,
        forwards=forward_facts(now),
        unclear=unclear_facts(now),
    )
