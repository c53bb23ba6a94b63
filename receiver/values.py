"""Reads the text of one setting. Each function raises ValueError with what a good value is like. Pure."""

import base64
import binascii
import math
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from receiver.api_keys import ApiKey, parse_api_keys
from receiver.database_url import postgresql_parameters

TO_MAKE_ONE = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
TO_MAKE_ONE_TO_SIGN = "echo whsec_$(openssl rand -base64 32)"
_SHORTEST_SECRET = 16
_SIGNING_PREFIX = "whsec_"
_SIGNING_BYTES = range(24, 65)


def database_url(text: str) -> str:
    """Return a SQLite or PostgreSQL URL as it is."""
    example = "must be like sqlite:///backstop.db or postgresql://user:password@host:5432/name"
    if text.startswith(("postgres://", "postgresql://")):
        return postgresql_url(text, example)
    url = _split(text, example)
    if url.scheme != "sqlite":
        raise ValueError(example)
    if url.path in {"", "/"} or url.netloc:
        raise ValueError(f"names no database; it {example}")
    if ":memory:" in text:
        raise ValueError(
            "must name a file, like sqlite:///backstop.db: a database in memory is lost with its process"
        )
    return text


def postgresql_url(text: str, example: str = "must be like postgresql://user:password@host:5432/name") -> str:
    """Return a PostgreSQL URL as it is."""
    if not text.startswith(("postgres://", "postgresql://")):
        raise ValueError(example)
    try:
        parameters = postgresql_parameters(text)
    except ValueError:
        raise ValueError(example) from None
    if not parameters.get("dbname"):
        raise ValueError(f"names no database; it {example}")
    return text


def _split(text: str, example: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        raise ValueError(example) from None


def days(text: str) -> timedelta:
    """Return a time of whole days."""
    return timedelta(days=whole(1, 36500)(text))


def http_url(text: str) -> str:
    """Return an address without its last slash."""
    example = "must be an http or https address, like https://backstop.example.com"
    try:
        url = urlsplit(text)
        url.port  # noqa: B018 - reading it checks it
    except ValueError:
        raise ValueError(example) from None
    if url.scheme not in {"http", "https"} or not url.hostname or url.username or re.search(r"[\s?#]", text):
        raise ValueError(example)
    return text.rstrip("/")


def public_url(text: str) -> str:
    """Return this deployment's address, to which the paths of our routes are appended."""
    url = http_url(text)
    if "callbacks" in urlsplit(url).path.split("/"):
        raise ValueError(
            "must be the address before /callbacks/, like https://backstop.example.com: the rest is appended"
        )
    return url


def api_keys(text: str) -> tuple[ApiKey, ...]:
    """Return API keys, which are hard to guess."""
    return parse_api_keys(text, TO_MAKE_ONE)


def api_token(text: str) -> str:
    """Return upstream's token."""
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError("must be printable ASCII without spaces, as https://platform.acedata.cloud shows it")
    return text


def callback_tokens(text: str) -> tuple[str, ...]:
    """Return tokens that are hard to guess and fit into a URL."""
    tokens = tuple(token.strip() for token in text.split(",") if token.strip())
    if not tokens or not all(
        re.fullmatch(rf"[A-Za-z0-9._~-]{{{_SHORTEST_SECRET},}}", token) for token in tokens
    ):
        raise ValueError(
            f"must be {_SHORTEST_SECRET} characters or more, each a letter, a digit or one of . _ ~ -"
            " (it is part of a URL), with commas between several tokens,"
            f" like the output of: {TO_MAKE_ONE}"
        )
    return tokens


def _number(text: str, example: str, most: int = 10**9) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(example) from None
    if not math.isfinite(number) or not 0 <= number <= most:
        raise ValueError(example)
    return number


def seconds(text: str) -> timedelta:
    """Return a length of time."""
    return timedelta(seconds=_number(text, "must be a number of seconds, 0 or more, like 180"))


def seconds_of_a_day(text: str) -> timedelta:
    """Return a length of time of a day at most."""
    return timedelta(
        seconds=_number(text, "must be a number of seconds from 0 to 86400, like 180", most=86_400)
    )


def rate(text: str) -> float:
    """Return calls a second, 0 for no limit."""
    return _number(text, "must be calls a second, like 1, or 0 for no limit")


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of whole numbers within bounds."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def boolean(text: str) -> bool:
    """Return true or false."""
    words = {"true": True, "1": True, "yes": True, "on": True}
    words |= {"false": False, "0": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError("must be true or false")
    return words[text.lower()]


def forward_urls(text: str) -> tuple[str, ...]:
    """Return addresses of the customer's app, each of them once."""
    if re.search(r",(\s|https?://)", text):
        raise ValueError("must separate its addresses by spaces, without commas")
    urls = tuple(text.split())
    normal = [_normal_url(url) for url in urls]
    if len(set(normal)) < len(normal):
        raise ValueError("must name each address once")
    return urls


_FORWARD_URLS = (
    "must be http or https addresses without a #, like https://app.example.com/hooks, separated by spaces"
)


def _normal_url(text: str, example: str = _FORWARD_URLS) -> tuple[str | None, ...]:
    """Return the parts of an address of ours to post to, in a form that equal addresses share."""
    url = _split(text, example)
    try:
        port = url.port or {"http": 80, "https": 443}[url.scheme]
    except (ValueError, KeyError):
        raise ValueError(example) from None
    if not url.hostname or "#" in text or not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError(example)
    return url.scheme, url.username, url.password, url.hostname, str(port), url.path or "/", url.query


def signing_secrets(text: str) -> tuple[str, ...]:
    """Return secrets to sign with, as Standard Webhooks writes them."""
    secrets = tuple(secret.strip() for secret in text.split(",") if secret.strip())
    if not secrets or not all(_is_signing_secret(secret) for secret in secrets):
        raise ValueError(
            f"must be {_SIGNING_PREFIX} and the base64 of {_SIGNING_BYTES[0]} to {_SIGNING_BYTES[-1]} bytes,"
            f" with commas between several, like the output of: {TO_MAKE_ONE_TO_SIGN}"
        )
    return secrets


def _is_signing_secret(secret: str) -> bool:
    encoded = secret.removeprefix(_SIGNING_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False
    return secret.startswith(_SIGNING_PREFIX) and len(key) in _SIGNING_BYTES


def forward_when(text: str) -> Literal["confirmed", "settled"]:
    """Return when the customer's app is told."""
    if text == "confirmed":
        return "confirmed"
    if text == "settled":
        return "settled"
    raise ValueError("must be confirmed or settled")


def watch_url(text: str) -> str:
    """Return an address of a monitor. It may be a secret."""
    _normal_url(text, "must be one http or https address without a #, like https://hc-ping.com/your-uuid")
    return text


def sentry_dsn(text: str) -> str:
    """Return the address of a Sentry project, with its key."""
    example = "must be the DSN of a Sentry project, like https://your-key@o1.ingest.sentry.io/2"
    _normal_url(text, example)
    if not urlsplit(text).username or not urlsplit(text).path.strip("/"):
        raise ValueError(example)
    return text


def alert_url(text: str) -> str:
    """Return an address to post alerts to, with or without the prefix that names their form."""
    example = (
        "must be one http or https address, like https://hooks.slack.com/services/…, or with slack+, ntfy+ or"
        " json+ before it"
    )
    _normal_url(re.sub(r"^(slack|ntfy|json)\+", "", text), example)
    return text


def log_format(text: str) -> Literal["text", "json"]:
    """Return the form of the log."""
    if text == "text":
        return "text"
    if text == "json":
        return "json"
    raise ValueError("must be text or json")
