"""What an error of upstream stops: all calls, those about its service, or none."""

from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import pauses
from receiver.upstream.errors import ErrorScope, UpstreamError

NOW = utcnow()
THROTTLED = UpstreamError("429", False, throttled=True, retry_after=timedelta(minutes=3))


@pytest.mark.parametrize(
    ("error", "stopped"),
    [
        (UpstreamError("401", True, ErrorScope.ACCOUNT), [("", True, None)]),
        (THROTTLED, [("", False, NOW + timedelta(minutes=3))]),
        (UpstreamError("disabled", True, ErrorScope.SERVICE), [("suno", True, None)]),
        (UpstreamError("too large", True, ErrorScope.SIZE), []),
        (UpstreamError("502", False), []),
    ],
    ids=lambda value: str(value) if isinstance(value, UpstreamError) else None,
)
def test_an_error_pauses_what_it_is_about(ledger, error, stopped):
    pauses.stop_after(error, "suno", NOW)
    in_force = pauses.pauses_in_force(NOW)
    assert [(one.service, one.account, one.ended_at) for one in in_force] == stopped
    assert error.stops_service == bool(stopped)
