"""Runs all checks of a deployment, one after the other."""

import logging
from collections.abc import Callable, Iterable, Iterator

from flask import Flask

from receiver.checks.database import NAME as DATABASE
from receiver.checks.database import check_database
from receiver.checks.disk import check_disks
from receiver.checks.finding import Finding, bad
from receiver.checks.outside import check_callback_url
from receiver.checks.overview import NAME as OVERVIEW
from receiver.checks.overview import check_overview
from receiver.checks.settings import check_settings
from receiver.checks.telling import check_endpoints, check_reconciler
from receiver.checks.upstream import check_upstream
from receiver.config import Settings

log = logging.getLogger(__name__)


def check_everything(app: Flask, settings: Settings, send: bool) -> Iterator[Finding]:
    """Yield all findings, as they come. With `send` the endpoints get test events."""
    yield from check_settings(settings)
    of_database = list(_guarded(DATABASE, lambda: check_database(settings)))
    yield from of_database
    yield from _guarded("disk", lambda: check_disks(settings))
    yield from _guarded("upstream", lambda: check_upstream(settings))
    yield from _guarded("callback URL", lambda: check_callback_url(settings))
    if not any(finding.level == "bad" for finding in of_database):
        yield from _guarded("reconciler", lambda: check_reconciler(settings))
        yield from _guarded("endpoints", lambda: check_endpoints(app, settings, send))
        yield from _guarded(OVERVIEW, check_overview)


def _guarded(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield a check's findings. An error of the check itself ends that check alone."""
    try:
        yield from check()
    except Exception as problem:
        log.exception("The check %r failed.", name)
        said = f"it could not be checked: {type(problem).__name__}"
        yield bad(name, said, "The log above says why. Please report it.")
