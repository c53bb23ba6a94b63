"""What upstream's errors mean: whom they concern, and whether asking again can help. Pure.

The code decides, not the status: upstream sends one code with several statuses.
"""

from datetime import timedelta
from enum import Enum

# Until a person mends it: the token is wrong, the balance is gone, the application is disabled, or the
# address is not the API's.
_OF_THE_ACCOUNT = frozenset(
    ("invalid_token", "token_expired", "token_mismatched", "no_token", "used_up", "insufficient_balance")
) | {"disabled", "no_api"}
# One id spoils the call for the others; or there are too many in it.
_OF_AN_ID = frozenset(("bad_request", "invalid_request", "not_found", "no_task", "forbidden")) | {
    "request_too_large"
}
_TRANSIENT = frozenset(("api_error", "unknown", "busy", "timeout", "connection_reset", "too_many_requests"))
_OF_THE_CALL = frozenset(("api_not_implemented",)) | _TRANSIENT
_TRANSIENT_STATUSES = frozenset((408, 409, 429, 499))
# Only an API that took the token answers so. `forbidden` may be about the token.
_SHOW_ACCESS = _OF_AN_ID - {"forbidden"}


class Concerns(Enum):
    """Whom an error concerns."""

    ACCOUNT = "account"  # every call, until a person mends it: a wrong token, no balance
    CALL = "call"  # this call alone
    ID = "id"  # one of the ids it names, which spoils the call for the others
    PERHAPS_ID = "perhaps_id"  # a 400 with a code of which nobody knows whom it concerns


class UpstreamError(Exception):
    """A look-up call that brought no answer.

    `permanent`: asking the same again cannot help. `wait`: upstream wants no calls, for `retry_after` where
    it said so. `shows_access`: only an API that took the token answers so.
    """

    def __init__(
        self,
        message: str,
        permanent: bool,
        concerns: Concerns = Concerns.CALL,
        wait: bool = False,
        retry_after: timedelta | None = None,
        shows_access: bool = False,
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.concerns = concerns
        self.wait = wait
        self.retry_after = retry_after
        self.shows_access = shows_access

    @property
    def may_be_an_id(self) -> bool:
        """Whether to ask about the ids apart: one of them may be what is wrong."""
        return self.concerns in {Concerns.ID, Concerns.PERHAPS_ID}


def error_of(status: int, code: str | None, message: str, retry_after: timedelta | None) -> UpstreamError:
    """Return the error that an answer is, by its status and the code in its body."""
    known = code in _OF_THE_ACCOUNT | _OF_AN_ID | _OF_THE_CALL
    transient = code in _TRANSIENT or (not known and (status >= 500 or status in _TRANSIENT_STATUSES))
    throttled = status == 429 or code == "too_many_requests"
    concerns = _concerns(status, code)
    return UpstreamError(
        message,
        permanent=not transient,
        concerns=concerns,
        wait=throttled or (transient and retry_after is not None),
        retry_after=retry_after,
        # A 400 without a code may be the answer of somebody in between.
        shows_access=code in _SHOW_ACCESS or (concerns is Concerns.PERHAPS_ID and code is not None),
    )


def _concerns(status: int, code: str | None) -> Concerns:
    if code in _OF_THE_ACCOUNT:
        return Concerns.ACCOUNT
    if code in _OF_AN_ID:
        return Concerns.ID
    if code in _OF_THE_CALL:
        return Concerns.CALL
    if status in {401, 402}:
        return Concerns.ACCOUNT
    if status == 413:
        return Concerns.ID
    return Concerns.PERHAPS_ID if status == 400 else Concerns.CALL
