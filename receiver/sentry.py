"""Sends errors to Sentry, if SENTRY_DSN is set and the package `sentry-sdk` is installed."""

import importlib
import logging
from typing import Any

from receiver.redact import mask_tokens_within
from receiver.version import VERSION

log = logging.getLogger(__name__)

# Of a request only its method and its masked URL are sent.
_SECRET_PARTS = ("headers", "cookies", "data", "env", "query_string")


def start_sentry(dsn: str | None) -> bool:
    """Send errors from now on. Returns whether they are sent.

    Without the package, the log says what to install.
    """
    if dsn is None:
        return False
    try:
        sdk = importlib.import_module("sentry_sdk")
    except ImportError:
        log.error(
            "SENTRY_DSN is set, but its package is missing: pip install sentry-sdk. Errors are only logged."
        )
        return False
    sdk.init(
        dsn=dsn,
        release=f"backstop@{VERSION}",
        send_default_pii=False,
        include_local_variables=False,  # they hold tokens and bodies
        max_request_body_size="never",
        traces_sample_rate=None,
        max_breadcrumbs=0,  # they hold the addresses of requests
        trace_propagation_targets=[],
        before_send=scrub,
    )
    return True


def scrub(event: dict[str, Any], hint: object = None) -> dict[str, Any]:
    """Return an event without what may hold a secret."""
    for part in _SECRET_PARTS:
        (event.get("request") or {}).pop(part, None)
    (event.get("logentry") or {}).pop("params", None)  # the message has them, and there they are masked
    event.pop("server_name", None)
    masked: dict[str, Any] = mask_tokens_within(event)
    return masked
