"""Errors with which upstream says that it wants no calls: then no reconciler asks for a while."""

import logging
from datetime import datetime, timedelta

from receiver.ledger import pauses
from receiver.upstream_errors import Concerns, UpstreamError

log = logging.getLogger(__name__)

_PAUSE = timedelta(minutes=5)


def of_all_calls(error: UpstreamError) -> UpstreamError:
    """Return an error that was taken for an id's as one of all calls: then nobody asks for some minutes."""
    return UpstreamError(f"{error} (whatever is asked)", error.permanent, wait=True, retry_after=_PAUSE)


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
