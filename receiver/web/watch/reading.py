"""Reads the ledger for /readyz: one reading at a time in each process, shared by all who ask meanwhile.

Anybody may ask. So the number of requests at once makes no difference to the database.
"""

import threading
from dataclasses import dataclass, field

from peewee import OperationalError

from receiver.clock import utcnow
from receiver.config import Settings
from receiver.ledger.engine.schema import pending_migrations
from receiver.ledger.models import ReconcileRun
from receiver.ledger.reading import queries
from receiver.web.intake import Intake
from receiver.web.offload import offload
from receiver.web.watch.facts import Facts
from receiver.web.watch.gathering import gather_facts
from receiver.web.writes import Writes


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger tells. `facts` is None while its schema is behind."""

    facts: Facts | None
    last_good_run: ReconcileRun | None = None
    last_answered_run: ReconcileRun | None = None


@dataclass(eq=False, slots=True)
class _Reading:
    """A reading in progress."""

    ended: threading.Event = field(default_factory=threading.Event)
    known: Known | None = None
    problem: Exception | None = None


class LedgerReader:
    """The readings of one application. Safe to share between threads."""

    def __init__(self, settings: Settings, intake: Intake) -> None:
        self._settings = settings
        self._intake = intake
        self._reading: _Reading | None = None
        self._lock = threading.Lock()

    def read(self, writes: Writes, within: float) -> Known:
        """Return what the ledger tells, by a reading of our own or by one that has begun already.

        Raises OperationalError after `within` seconds, for example when the server hangs. The reading then
        goes on until its connection gives up, and nobody begins another before that.
        """
        with self._lock:
            reading = self._reading
            if reading is None:
                reading = self._reading = _Reading()
                threading.Thread(target=self._run, args=(reading, writes), daemon=True).start()
        if not reading.ended.wait(within):
            raise OperationalError(f"the database did not answer within {within:g} s")
        if reading.known is None:
            assert reading.problem is not None
            raise reading.problem
        return reading.known

    def _run(self, reading: _Reading, writes: Writes) -> None:
        try:
            reading.known = offload(self._know, writes)
        except Exception as problem:  # noqa: BLE001 - raised again by all who asked
            reading.problem = problem
        finally:
            with self._lock:
                self._reading = None
            reading.ended.set()

    def _know(self, writes: Writes) -> Known:
        if pending_migrations():
            return Known(None)
        facts = gather_facts(utcnow(), self._settings, self._intake, writes)
        return Known(facts, queries.last_good_run(), queries.last_answered_run())
