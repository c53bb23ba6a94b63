"""Reads the text of one setting. Each function raises ValueError with what a good value is like. Pure."""

import math
import re
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import SplitResult, urlsplit

from receiver.database_url import postgresql_parameters

TO_MAKE_ONE = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
_SHORTEST_SECRET = 16


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


def http_url(text: str) -> str:
    """Return an address without its last slash."""
    example = "must be an http or https address, like https://backstop.example.com"
    try:
        url = urlsplit(text)
        url.port  # noqa: B018 - reading it checks it
    except ValueError:
        raise ValueError(example) from None
    if url.scheme not in {"http", "https"} or not url.hostname or url.query or url.fragment or url.username:
        raise ValueError(example)
    return text.rstrip("/")


def api_key(text: str) -> str:
    """Return an API key, which is hard to guess."""
    if not re.fullmatch(rf"[\x21-\x7e]{{{_SHORTEST_SECRET},}}", text):
        raise ValueError(
            f"must be {_SHORTEST_SECRET} characters or more of printable ASCII without spaces,"
            f" like the output of: {TO_MAKE_ONE}"
        )
    return text


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


def _number(text: str, example: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(example) from None
    if not math.isfinite(number) or not 0 <= number <= 10**9:
        raise ValueError(example)
    return number


def seconds(text: str) -> timedelta:
    """Return a length of time."""
    return timedelta(seconds=_number(text, "must be a number of seconds, 0 or more, like 180"))


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
