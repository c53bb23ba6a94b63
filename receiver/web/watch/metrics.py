"""GET /metrics: what Prometheus reads. All of it comes from the ledger at each scrape.

So it is the same from each process, and a restart of one changes nothing.
"""

from flask import Blueprint, Response
from flask.typing import ResponseReturnValue
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from receiver.web.auth import require_api_key
from receiver.web.current import current_settings
from receiver.web.intake import current_intake
from receiver.web.offload import offload
from receiver.web.watch.scrape import Scrape

blueprint = Blueprint("metrics", __name__)
blueprint.before_request(require_api_key)


@blueprint.get("/metrics")
def metrics() -> ResponseReturnValue:
    """Report to Prometheus: 200, also while the database is away. 401: no API key."""
    intake = current_intake()
    registry = CollectorRegistry(auto_describe=False)
    scrape = Scrape(current_settings(), intake, intake.writes())
    registry.register(scrape)
    return Response(offload(generate_latest, registry), content_type=CONTENT_TYPE_LATEST)
