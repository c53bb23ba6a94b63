"""What becomes of callbacks now: kept, spooled or refused, and how many were refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from flask import Flask, current_app

from receiver.ledger import refusals
from receiver.ledger.refusals import NOT_KEPT, Refused
from receiver.spool.spool import Spool
from receiver.web.refused import RefusedRequests
from receiver.web.writes import Writes, WriteTrial

REFUSED_TOLD_FOR = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Kept:
    """How many deliveries wait in the spool, None when it cannot be used, and how many were refused."""

    spooled: int | None
    refused: int


class Intake:
    """The spool, the counts of what was refused, and the trial of writes of one application."""

    def __init__(self, spool_dir: Path) -> None:
        self.spool = Spool(spool_dir)
        self.refused = RefusedRequests()
        self._trial = WriteTrial()

    def writes(self) -> Writes:
        """Return whether callbacks can be kept now, as of some seconds ago at most."""
        return self._trial.writes(self.spool)

    @property
    def spooled(self) -> int | None:
        """How many deliveries wait in the spool; None when it cannot be used, as of the last trial too."""
        return self.spool.depth() if self._trial.last.spool is None else None

    def corrected(self, writes: Writes, refused: Mapping[str, Refused]) -> Writes:
        """Return whether callbacks can be kept, in view of those that were refused lately."""
        return writes.corrected(refused.get(NOT_KEPT), self.refused.everywhere().get(NOT_KEPT))

    def refused_since(self, moment: datetime) -> dict[str, Refused]:
        """Return what was refused since a moment, by kind, what is not written down yet included."""
        return refusals.total([*refusals.since(moment).values(), *self.refused.everywhere().values()])


def current_intake() -> Intake:
    """Return that of the application which serves the present request."""
    return intake_of(current_app)


def intake_of(app: Flask) -> Intake:
    """Return that of an application."""
    intake: Intake = app.extensions["backstop_intake"]
    return intake


def kept_meanwhile() -> Kept:
    """Return what became of the callbacks that the database did not take. It asks no database."""
    intake = current_intake()
    lost = intake.refused.everywhere().get(NOT_KEPT)
    return Kept(spooled=intake.spooled, refused=lost.requests if lost else 0)
