"""Which tasks in upstream's list are ours: those whose callback URL points at this deployment. Pure."""

from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Deployment:
    """The deployment at a public address, with or without a path."""

    def __init__(self, public_url: str) -> None:
        parts = urlsplit(public_url)
        self._address = _address(parts)
        self._prefix = unquote(parts.path).rstrip("/") + "/callbacks/"

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
