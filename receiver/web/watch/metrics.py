"""GET /metrics: what Prometheus reads. All of it comes from the ledger at each scrape.

So it is the same from each process, and a restart of one changes nothing.
"""

from collections.abc import Iterator

from flask import Blueprint, Response
from flask.typing import ResponseReturnValue
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from receiver.clock import utcnow
from receiver.config import Settings
from receiver.ledger.engine.errors import DATABASE_ERRORS
from receiver.ledger.reading.meters import Meters, read_meters
from receiver.web.auth import require_api_key
from receiver.web.current import current_settings
from receiver.web.intake import Intake, current_intake
from receiver.web.offload import offload
from receiver.web.watch import families
from receiver.web.watch.facts import Facts
from receiver.web.watch.gathering import facts_without_ledger, gather_facts
from receiver.web.watch.rooms import rooms
from receiver.web.watch.summary import summarise, summarise_without_ledger
from receiver.web.watch.troubles import troubles
from receiver.web.writes import Writes

blueprint = Blueprint("metrics", __name__)
blueprint.before_request(require_api_key)


class _Scrape(Collector):
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


@blueprint.get("/metrics")
def metrics() -> ResponseReturnValue:
    """Report to Prometheus: 200, also while the database is away. 401: no API key."""
    intake = current_intake()
    registry = CollectorRegistry(auto_describe=False)
    scrape = _Scrape(current_settings(), intake, intake.writes())
    registry.register(scrape)
    return Response(offload(generate_latest, registry), content_type=CONTENT_TYPE_LATEST)
