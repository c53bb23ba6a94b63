"""Errors with which upstream says that it wants no calls: then no reconciler asks for a while."""

import logging
from datetime import datetime, timedelta

from receiver.ledger import pauses
from receiver.upstream import Concerns, UpstreamError

log = logging.getLogger(__name__)

# After an error of which nobody knows whether it passes.
WHILE = timedelta(minutes=1)


def wants_no_calls(error: UpstreamError) -> bool:
    """Tell whether the error is about more than the call that met it."""
    return error.wait or error.concerns is Concerns.ACCOUNT


def pause_asking(error: UpstreamError, now: datetime) -> None:
    """Stop asking, this reconciler and all others."""
    if error.concerns is Concerns.ACCOUNT:
        if pauses.pause_account(str(error), now):
            log.error("Asking is paused until this is mended, it concerns the whole account: %s", error)
    else:
        waits = pauses.throttle(str(error), error.retry_after, now)
        log.warning("Asking is paused for %.0f s: %s", waits.total_seconds(), error)


def pause_for_a_while(error: UpstreamError, now: datetime) -> None:
    """Stop asking for WHILE: upstream refuses every call, for a reason that its contract does not name."""
    waits = pauses.throttle(str(error), WHILE, now)
    log.error("Asking is paused for %.0f s: upstream refuses every look-up: %s", waits.total_seconds(), error)
