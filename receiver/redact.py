"""Masks the tokens of callback URLs in texts."""

import re
from typing import Any

MASK = "***"
# Slashes as URLs and JSON may encode them. The first one matches without its backslashes: a pattern that
# began with them would take quadratic time on a long row of backslashes.
_FIRST_SLASH = r"(?:/|%2[fF]|u002[fF])"
_SLASH = r"(?:\\*/|%2[fF]|\\+u002[fF])"
_TOKEN_IN_URL = re.compile(rf"({_FIRST_SLASH}callbacks{_SLASH}+)(?:(?!{_SLASH})[^\s?#\"'\\<>])+")

_USER_IN_URL = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*://)[^/?#\\]*@")


def mask_tokens(text: str) -> str:
    """Return `text` with the segment after every `/callbacks/` masked, also when it is not our token."""
    if "callbacks" not in text:  # nearly always true, and much faster than the pattern
        return text
    return _TOKEN_IN_URL.sub(rf"\1{MASK}", text)


def mask_credentials(url: str) -> str:
    """Return a URL with its user, its password and the token of a callback URL masked."""
    return mask_tokens(_USER_IN_URL.sub(rf"\1{MASK}@", url))


def may_hold_token(document: str) -> bool:
    """Tell whether a JSON text may hold a callback URL. This is faster than reading all its strings."""
    return "callbacks" in document or "\\" in document  # an escape may hide any letter


def mask_tokens_within(value: Any) -> Any:
    """Return parsed JSON with the tokens in all its strings masked, including keys."""
    if isinstance(value, str):
        return mask_tokens(value)
    if isinstance(value, list):
        return [mask_tokens_within(item) for item in value]
    if isinstance(value, dict):
        return {mask_tokens(key): mask_tokens_within(item) for key, item in value.items()}
    return value
