"""Records callbacks, and tells what happens to them now: kept, spooled or refused, and how many."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from flask import Flask, current_app

from receiver.config import Settings
from receiver.ledger import refusals, store
from receiver.ledger.admission import UnknownBudget
from receiver.ledger.refusals import NOT_KEPT, SHORTENED, UNKNOWN_REFUSED, Refused
from receiver.ledger.timetable import Timetable
from receiver.spool.spool import Spool
from receiver.web.absence import Absence
from receiver.web.refused import RefusedRequests
from receiver.web.writes import Writes, WriteTrial

log = logging.getLogger(__name__)

LIMITED = (SHORTENED, UNKNOWN_REFUSED)  # counted, and logged once a minute at most
REFUSED_TOLD_FOR = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Kept:
    """How many deliveries wait in the spool (None if it is unusable), and how many were refused."""

    spooled: int | None
    refused: int


class Intake:
    """One application's spool, limits for unknown tasks, counts of refused requests, and trial of writes."""

    def __init__(self, settings: Settings) -> None:
        self.spool = Spool(settings.spool_dir)
        self.unknown = UnknownBudget.a_minute(
            settings.unknown_callbacks_per_minute, settings.unknown_megabytes_per_minute * 2**20
        )
        self.refused = RefusedRequests()
        self.absence = Absence()
        self._trial = WriteTrial()

    def writes(self) -> Writes:
        """Return whether callbacks can be stored. The answer is at most some seconds old."""
        return self._trial.writes(self.spool)

    @property
    def spooled(self) -> int | None:
        """How many deliveries wait in the spool; None if it is unusable, now or in the last trial."""
        return self.spool.depth() if self._trial.last.spool is None else None

    def corrected(self, writes: Writes, refused: Mapping[str, Refused]) -> Writes:
        """Return `writes`, corrected by the callbacks that were really lost lately."""
        return writes.corrected(refused.get(NOT_KEPT), self.refused.unrecorded().get(NOT_KEPT))

    def refused_since(self, moment: datetime) -> dict[str, Refused]:
        """Return the refused requests since a moment, by kind, including those not in the ledger yet."""
        return refusals.total([*refusals.since(moment).values(), *self.refused.unrecorded().values()])


def current_intake() -> Intake:
    """Return the intake of the application that serves the current request."""
    return intake_of(current_app)


def intake_of(app: Flask) -> Intake:
    """Return an application's intake."""
    intake: Intake = app.extensions["backstop_intake"]
    return intake


def kept_meanwhile() -> Kept:
    """Return what happened to callbacks that the database did not store. Does not use the database."""
    intake = current_intake()
    lost = intake.refused.unrecorded().get(NOT_KEPT)
    return Kept(spooled=intake.spooled, refused=lost.requests if lost else 0)


def record(
    callback: store.Callback,
    received_at: datetime,
    settings: Settings,
    timetable: Timetable,
    unknown: UnknownBudget | None,
) -> store.Recorded:
    """Record a callback in the ledger. It comes from the network or from the spool."""
    recorded = store.record(
        callback,
        received_at,
        timetable=timetable,
        confirm=settings.confirm_callbacks,
        largest=settings.max_body_bytes,
        unknown=unknown,
    )
    if recorded.problem and recorded.problem.code not in LIMITED:
        log.warning("A callback was stored, but names no task: %s.", recorded.problem.code)
    return recorded
