"""One scrape of Prometheus: the facts of this moment, as families of metrics. It reads the ledger."""

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from receiver.clock import utcnow
from receiver.config import Settings
from receiver.ledger.engine.errors import DATABASE_ERRORS
from receiver.ledger.reading.meters import Meters, read_meters
from receiver.web.intake import Intake
from receiver.web.watch import families
from receiver.web.watch.facts import Facts
from receiver.web.watch.gathering import facts_without_ledger, gather_facts
from receiver.web.watch.rooms import rooms
from receiver.web.watch.summary import summarise, summarise_without_ledger
from receiver.web.watch.troubles import troubles
from receiver.web.writes import Writes


class Scrape(Collector):
    """Yields the metrics: those of this process alone while the ledger cannot be read."""

    def __init__(self, settings: Settings, intake: Intake, writes: Writes) -> None:
        self._settings = settings
        self._intake = intake
        self._writes = writes

    def collect(self) -> Iterator[Metric]:
        facts, meters = self._read()
        found = troubles(summarise(facts) if meters else summarise_without_ledger(facts))
        spool_bytes = self._intake.spool.bytes()
        yield from families.of_this_process(facts, rooms(self._settings), spool_bytes, found)
        yield families.database_up(meters is not None)
        if meters is not None:
            yield from families.of_the_ledger(facts, meters)

    def _read(self) -> tuple[Facts, Meters | None]:
        now = utcnow()
        if self._writes.hangs:
            return facts_without_ledger(now, self._settings, self._intake, self._writes), None
        try:
            facts = gather_facts(now, self._settings, self._intake, self._writes)
            return facts, read_meters(now)
        except DATABASE_ERRORS:
            return facts_without_ledger(now, self._settings, self._intake, self._writes), None
