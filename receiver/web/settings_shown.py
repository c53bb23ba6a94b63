"""The effective settings as people may see them. A secret is masked, also one that is added later. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from receiver.redact import MASK, mask_credentials

_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|DSN")
# Addresses without a secret in their path. Of the others only the server is shown.
_PLAIN_URLS = frozenset({"PUBLIC_URL", "ACEDATACLOUD_API_BASE_URL", "DATABASE_URL", "DIRECT_DATABASE_URL"})


@dataclass(frozen=True, slots=True)
class Shown:
    """One setting. `is_set` tells whether it has been given; else `text` is the default."""

    name: str
    text: str
    is_set: bool


def shown_settings(given: Mapping[str, tuple[object, bool]]) -> Iterator[Shown]:
    """Return the settings in their order."""
    for name, (value, is_set) in given.items():
        yield Shown(name, _text(name, value), is_set)


def _text(name: str, value: object) -> str:
    values = value if isinstance(value, tuple) else (value,)
    if not any(str(one) for one in values if one is not None):
        return ""
    if _SECRET.search(name):
        return MASK if len(values) == 1 else f"{len(values)} of them, {MASK}"
    if name.endswith("URL"):
        return " ".join(_url(name, str(one)) for one in values)
    return " ".join(map(_plain, values))


def _url(name: str, url: str) -> str:
    masked = mask_credentials(url)
    if name in _PLAIN_URLS:
        return masked.partition("?")[0]
    parts = urlsplit(masked)
    has_more = parts.path not in {"", "/"} or parts.query
    return f"{parts.scheme}://{parts.netloc}{'/…' if has_more else ''}"


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}"
    return f"{value:g}" if isinstance(value, float) else str(value)
