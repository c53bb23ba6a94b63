"""Which tasks in upstream's list are ours: those whose callback URL points at this deployment. Pure."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from receiver.ledger.evidence import Discovered
from receiver.upstream.results import Unreadable, read_item

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Deployment:
    """The deployment at a public address, with or without a path."""

    def __init__(self, public_url: str) -> None:
        parts = urlsplit(public_url)
        self._address = _address(parts)
        self._prefix = unquote(parts.path).rstrip("/") + "/callbacks/"

    def ours_in(self, page: Iterable[Any], service: str, since: datetime) -> list[Discovered]:
        """Return the tasks of ours on a page of a service's list that were not submitted before a moment."""
        return [one for item in page if (one := self._read(item, service, since))]

    def _read(self, item: Any, service: str, since: datetime) -> Discovered | None:
        ref = self.ref_in(item)
        if ref is None:
            return None
        try:
            result = read_item(item)  # it masks the token that the callback URL holds
        except Unreadable:
            return None
        is_older = result.submitted_at is not None and result.submitted_at < since
        return None if is_older else Discovered(result, service, ref)

    def ref_in(self, item: Any) -> str | None:
        """Return the ref in the callback URL of one of our tasks, "" where it has none; None: not our task.

        The token in it is not looked at: tokens are rotated, and an older task is still ours.
        """
        request = item.get("request") if isinstance(item, dict) else None
        url = request.get("callback_url") if isinstance(request, dict) else None
        if not isinstance(url, str):
            return None
        try:
            parts = urlsplit(url)
            is_here = parts.scheme in _DEFAULT_PORTS and _address(parts) == self._address
        except ValueError:  # a port that is no number, a bracket that is not closed
            return None
        path = unquote(parts.path)  # as web servers do before they look for a route
        if not is_here or not path.startswith(self._prefix):
            return None
        token, _, ref = path.removeprefix(self._prefix).partition("/")
        return ref if token else None


def _address(parts: SplitResult) -> tuple[str, int | None]:
    """Return host and port; every scheme's default port is None, so that http and https are one place."""
    if "\\" in parts.netloc:
        raise ValueError("clients do not agree on the host of such a URL")
    port = None if parts.port == _DEFAULT_PORTS.get(parts.scheme) else parts.port
    return (parts.hostname or "").rstrip("."), port
