"""Checks the settings against each other and against good sense. Pure.

What makes a process refuse to start is not here: see `receiver.config`.
"""

from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

from receiver.checks.finding import Finding, bad, good, warning
from receiver.config import Settings
from receiver.misspelt import in_words

NAME = "settings"
_OFFICIAL_API = "https://api.acedata.cloud"
_FASTEST = 1.0  # calls a second that upstream advises
_SLOWEST = 0.01
_LONGEST_TASK = timedelta(minutes=10)
_LARGE_CALLBACK = 65_536  # bytes


def check_settings(settings: Settings) -> list[Finding]:
    """Return what is wrong with the settings, or that nothing is."""
    checks = (_addresses, _endpoints, _secrets, _limits, _callbacks, _too_long, _misspelt)
    found = [finding for check in checks for finding in check(settings)]
    return found or [good(NAME, "they are complete and agree with each other")]


def _addresses(settings: Settings) -> Iterator[Finding]:
    if settings.public_url is None:
        yield warning(
            NAME,
            "PUBLIC_URL is missing: tasks that nobody registers are not discovered, and the callback URL is"
            " not checked",
            "Set PUBLIC_URL to this deployment's address, like https://backstop.example.com.",
        )
    if not _is_safe(settings.api_base_url):
        yield bad(
            NAME,
            "ACEDATACLOUD_API_BASE_URL begins with http://: the token travels unencrypted",
            f"Set ACEDATACLOUD_API_BASE_URL to {_OFFICIAL_API}, or unset it.",
        )


def _endpoints(settings: Settings) -> Iterator[Finding]:
    public = settings.public_url
    if public and any(url.startswith(f"{public}/callbacks/") for url in settings.forward_urls):
        yield bad(
            NAME,
            "FORWARD_URL leads to Backstop's own callback URL: your app is told nothing",
            "Set FORWARD_URL to an address of your app.",
        )
    if any(not _is_safe(url) for url in settings.forward_urls):
        yield warning(
            NAME,
            "an address in FORWARD_URL begins with http://: results travel unencrypted",
            "Use https:// in FORWARD_URL, unless that network is yours alone.",
        )


def _secrets(settings: Settings) -> Iterator[Finding]:
    if settings.api_token is None:
        yield bad(
            NAME,
            "ACEDATACLOUD_API_TOKEN is missing: no lost callback is recovered and none is confirmed",
            "Copy ACEDATACLOUD_API_TOKEN from https://platform.acedata.cloud and restart.",
        )
    if any(key.key in settings.callback_tokens for key in settings.api_keys):
        yield bad(
            NAME,
            "API_KEY and CALLBACK_TOKEN are the same: who sees a callback URL can read and change everything",
            "Make a new API_KEY: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )


def _limits(settings: Settings) -> Iterator[Finding]:
    rate = settings.reconcile_max_rate
    if settings.api_base_url == _OFFICIAL_API and not 0 < rate <= _FASTEST:
        yield warning(
            NAME,
            "RECONCILE_MAX_RATE allows more than one call a second: Ace Data Cloud refuses calls beyond that",
            "Set RECONCILE_MAX_RATE=1, or unset it.",
        )
    if 0 < rate < _SLOWEST:
        yield warning(
            NAME,
            "RECONCILE_MAX_RATE allows less than one call in 100 s: lost callbacks are found late",
            "Set RECONCILE_MAX_RATE=1, or unset it.",
        )
    if settings.reconcile_give_up_after < _LONGEST_TASK:
        yield warning(
            NAME,
            "RECONCILE_GIVE_UP_AFTER is shorter than a task may take: tasks expire that still run",
            "Set RECONCILE_GIVE_UP_AFTER=86400, or unset it.",
        )


def _callbacks(settings: Settings) -> Iterator[Finding]:
    if not settings.confirm_callbacks:
        yield warning(
            NAME,
            "CONFIRM_CALLBACKS=false: a forged callback counts as a result",
            "Unset CONFIRM_CALLBACKS, unless nobody else can reach the callback URL.",
        )
    if settings.max_body_bytes < _LARGE_CALLBACK:
        yield warning(
            NAME,
            f"MAX_BODY_BYTES is {settings.max_body_bytes}: larger callbacks are cut, and their results lost"
            " until a look-up brings them",
            "Unset MAX_BODY_BYTES.",
        )


def _too_long(settings: Settings) -> Iterator[Finding]:
    for name, time, longest, consequence in (
        ("RECONCILE_INTERVAL", settings.reconcile_interval, 300, "lost callbacks are found late"),
        ("RECONCILE_GRACE", settings.reconcile_grace, 3600, "lost callbacks are found late"),
        (
            "RECONCILE_LEASE",
            settings.reconcile_lease,
            3600,
            "after a reconciler is killed, nobody asks about its tasks for so long",
        ),
    ):
        if time > timedelta(seconds=longest):
            yield warning(NAME, f"{name} is {time.total_seconds():g} s: {consequence}", f"Unset {name}.")


def _misspelt(settings: Settings) -> Iterator[Finding]:
    for told in in_words(settings.misspelt):
        yield warning(NAME, told, "Correct its name, or remove it.")


def _is_safe(url: str) -> bool:
    """Tell whether nobody can listen in: by TLS, or as the host is this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "https" or host == "localhost" or host.startswith("127.")
