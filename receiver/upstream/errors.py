"""What upstream's errors mean. The code decides, as one code comes with several HTTP statuses. Pure."""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum


class ErrorScope(Enum):
    """What an error applies to."""

    ACCOUNT = "account"  # every call, until a person fixes it: a wrong token, no balance
    SERVICE = "service"  # every call about this service, until a person fixes it
    CALL = "call"  # this call only
    ID = "id"  # one of the call's ids, which makes the whole call fail
    SIZE = "size"  # the call asks for too much at once


class UpstreamError(Exception):
    """A call to upstream failed.

    `permanent`: the same call would fail again. `throttled`: upstream wants no calls for now, or for
    `retry_after` if it said so. `shows_access`: upstream sends this error only after it has accepted the
    token. `is_known`: upstream documents the code; for any other code the scope is a guess.
    """

    def __init__(
        self,
        message: str,
        permanent: bool,
        scope: ErrorScope = ErrorScope.CALL,
        throttled: bool = False,
        retry_after: timedelta | None = None,
        shows_access: bool = False,
        is_known: bool = True,
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.scope = scope
        self.throttled = throttled
        self.retry_after = retry_after
        self.shows_access = shows_access
        self.is_known = is_known

    @property
    def stops_all(self) -> bool:
        """Whether all calls must wait, those about other services too."""
        return self.throttled or self.scope is ErrorScope.ACCOUNT

    @property
    def stops_service(self) -> bool:
        """Whether calls about this service must wait, or all calls."""
        return self.stops_all or self.scope is ErrorScope.SERVICE


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an error means for us; see `UpstreamError`."""

    scope: ErrorScope
    permanent: bool = True
    throttled: bool = False
    shows_access: bool = False
    is_known: bool = True


_ACCOUNT = Meaning(ErrorScope.ACCOUNT)
_OF_SERVICE = Meaning(ErrorScope.SERVICE)
_TRANSIENT = Meaning(ErrorScope.CALL, permanent=False)
_SLOW_DOWN = Meaning(ErrorScope.CALL, permanent=False, throttled=True)
_SPOILT = Meaning(ErrorScope.ID, shows_access=True)
_TOO_LARGE = Meaning(ErrorScope.SIZE)
_BY_CODE = {
    **dict.fromkeys(("bad_request", "invalid_request", "not_found", "no_task"), _SPOILT),
    # The request is wrong whatever ids it names.
    "api_not_implemented": Meaning(ErrorScope.CALL),
    # Does not show access: it may be about the token.
    "forbidden": Meaning(ErrorScope.ID),
    **dict.fromkeys(("invalid_token", "token_expired", "token_mismatched", "no_token"), _ACCOUNT),
    **dict.fromkeys(("used_up", "insufficient_balance"), _ACCOUNT),
    # Each service has an application of its own, and a path.
    **dict.fromkeys(("disabled", "no_api"), _OF_SERVICE),
    "request_too_large": Meaning(ErrorScope.SIZE, shows_access=True),
    "too_many_requests": _SLOW_DOWN,
    **dict.fromkeys(("api_error", "unknown", "busy", "timeout", "connection_reset"), _TRANSIENT),
}
_BY_STATUS = {
    # Without a code the answer may come from a proxy.
    400: Meaning(ErrorScope.ID, is_known=False),
    401: _ACCOUNT,
    402: _ACCOUNT,
    408: _TRANSIENT,
    409: _TRANSIENT,
    413: _TOO_LARGE,
    429: _SLOW_DOWN,
}
_UNKNOWN_CODE_OF_400 = Meaning(ErrorScope.ID, shows_access=True, is_known=False)


def meaning_of(status: int, code: str | None) -> Meaning:
    """Return an error's meaning, by its code if upstream documents that, else by its status."""
    if code in _BY_CODE:
        return _BY_CODE[code]
    if status == 400 and code:
        return _UNKNOWN_CODE_OF_400
    return _BY_STATUS.get(status, _TRANSIENT if status >= 500 else Meaning(ErrorScope.CALL))
