"""Actions on what is asked of upstream that the API, the pages and the commands share.

They leave a note in the ledger. A reconciler follows it: the web process itself asks nothing here.
"""

import logging
from datetime import datetime

from werkzeug.exceptions import Conflict

from receiver.clock import utcnow
from receiver.ledger import pauses, returns
from receiver.web.current import current_settings
from receiver.web.formatting import exact

log = logging.getLogger(__name__)


def probe_or_409() -> datetime:
    """Let the next look-up find out now whether each pause is over, and return the moment. 409: none waits.

    It ends no pause by itself: upstream's answer to the probe decides. So it is safe at any time.
    """
    now = utcnow()
    found = pauses.pauses_in_force(now)
    if not found:
        raise Conflict("Upstream is not paused: it is asked about whatever is due.")
    if not any(pause.account for pause in found):
        ends_at = exact(max(pause.ended_at or now for pause in found))
        raise Conflict(f"Upstream wants no look-ups until {ends_at}. They resume by themselves.")
    pauses.probe_at_once(now)
    returns.note_return()  # where no task is due, a discovery probes
    log.info("A probe of upstream is ordered: a reconciler asks whether its pause is over.")
    return now


def discover_or_409() -> datetime:
    """Have a reconciler discover at once, and return the moment. 409: PUBLIC_URL is missing.

    What may have been missed is looked for as after an absence of the receiver.
    """
    if current_settings().public_url is None:
        raise Conflict(
            "PUBLIC_URL is not set, so nobody can tell which tasks in upstream's list are yours. Set it to"
            " this deployment's address, like https://backstop.example.com, and restart."
        )
    returns.note_return()
    log.info("A discovery is ordered: a reconciler looks for tasks in upstream's lists.")
    return utcnow()
