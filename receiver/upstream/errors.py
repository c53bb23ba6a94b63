"""What upstream's errors mean: the code decides, since one code comes with several statuses. Pure."""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum


class ErrorScope(Enum):
    """How much of what we ask an error is about."""

    ACCOUNT = "account"  # every call, until a person mends it: a wrong token, no balance
    CALL = "call"  # this call alone
    ID = "id"  # one of the ids it names, which spoils the call for the others
    SIZE = "size"  # the call asks for too much at once


class UpstreamError(Exception):
    """A look-up call that brought no answer.

    `permanent`: asking the same again cannot help. `throttled`: upstream wants no calls, for `retry_after`
    where it said so. `shows_access`: upstream answers so only after it has accepted the token. `is_known`:
    upstream documents the code; the scope of any other is a guess.
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
        """Whether upstream wants no calls at all for now."""
        return self.throttled or self.scope is ErrorScope.ACCOUNT


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an error means for us, apart from its words."""

    scope: ErrorScope
    permanent: bool = True
    throttled: bool = False
    shows_access: bool = False
    is_known: bool = True


_ACCOUNT = Meaning(ErrorScope.ACCOUNT)
_TRANSIENT = Meaning(ErrorScope.CALL, permanent=False)
_SLOW_DOWN = Meaning(ErrorScope.CALL, permanent=False, throttled=True)
_SPOILT = Meaning(ErrorScope.ID, shows_access=True)
_TOO_LARGE = Meaning(ErrorScope.SIZE)
_BY_CODE = {
    **dict.fromkeys(("bad_request", "invalid_request", "not_found", "no_task"), _SPOILT),
    # No id provokes it: the request is wrong whichever tasks it names.
    "api_not_implemented": Meaning(ErrorScope.CALL),
    # It may be about the token.
    "forbidden": Meaning(ErrorScope.ID),
    **dict.fromkeys(("invalid_token", "token_expired", "token_mismatched", "no_token"), _ACCOUNT),
    **dict.fromkeys(("used_up", "insufficient_balance", "disabled", "no_api"), _ACCOUNT),
    "request_too_large": Meaning(ErrorScope.SIZE, shows_access=True),
    "too_many_requests": _SLOW_DOWN,
    **dict.fromkeys(("api_error", "unknown", "busy", "timeout", "connection_reset"), _TRANSIENT),
}
_BY_STATUS = {
    # Without a code, somebody in between may have answered.
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
    """Return what an error means: by its code where upstream documents that, else by its status."""
    if code in _BY_CODE:
        return _BY_CODE[code]
    if status == 400 and code:
        return _UNKNOWN_CODE_OF_400
    return _BY_STATUS.get(status, _TRANSIENT if status >= 500 else Meaning(ErrorScope.CALL))
