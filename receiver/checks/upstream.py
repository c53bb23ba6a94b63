"""Checks the way to upstream: one look-up with our token, and our clock against upstream's."""

import secrets
from collections.abc import Iterator

from receiver.checks.finding import Finding, bad, good, warning
from receiver.clock import SKEW, WRONG_BEYOND, from_http_date, utcnow
from receiver.config import Settings
from receiver.upstream.client import Upstream
from receiver.upstream.date import ask_date
from receiver.upstream.errors import ErrorScope, UpstreamError
from receiver.upstream.services import DEFAULT

NAME, CLOCK = "upstream", "clock"


def check_upstream(settings: Settings) -> Iterator[Finding]:
    """Yield what a look-up of an unknown task tells, and how far the clocks differ."""
    if settings.api_token is not None:
        yield _look_up(settings)
    yield from _clock(settings.api_base_url)


def _look_up(settings: Settings) -> Finding:
    try:
        Upstream.from_settings(settings).retrieve_batch(DEFAULT, [f"check-{secrets.token_hex(8)}"])
    except UpstreamError as problem:
        return _of_error(problem, settings.api_base_url)
    return good(NAME, f"{settings.api_base_url} accepts the token")


def _of_error(problem: UpstreamError, base_url: str) -> Finding:
    if problem.shows_access:
        return good(NAME, f"{base_url} accepts the token")
    if problem.scope in (ErrorScope.ACCOUNT, ErrorScope.SERVICE):
        return bad(
            NAME,
            f"nothing can be asked: {problem}",
            "See https://platform.acedata.cloud: is ACEDATACLOUD_API_TOKEN right and enabled, and is there"
            " balance? Is ACEDATACLOUD_API_BASE_URL right?",
        )
    if problem.throttled:
        return warning(NAME, f"it wants fewer calls: {problem}", "Wait, and lower RECONCILE_MAX_RATE.")
    return bad(
        NAME,
        f"a look-up fails at {base_url}: {problem}",
        "Is ACEDATACLOUD_API_BASE_URL right, and may this machine connect there? If both are so, upstream is"
        " down: lost callbacks are recovered when it is back.",
    )


def _clock(base_url: str) -> Iterator[Finding]:
    theirs = from_http_date(ask_date(base_url))
    if theirs is None:
        return
    off = utcnow() - theirs
    said = f"it differs from upstream's by {abs(off.total_seconds()):.0f} s"
    remedy = "Set this machine's clock, and keep it right with NTP (systemd-timesyncd or chrony)."
    if abs(off) > WRONG_BEYOND:
        yield bad(CLOCK, f"{said}: look-ups and retries come at wrong times", remedy)
    elif abs(off) > SKEW:
        yield warning(CLOCK, said, remedy)
    else:
        yield good(CLOCK, said)
