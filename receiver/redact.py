"""Masks callback tokens wherever a callback URL shows up in text."""

import re
from typing import Any

MASK = "***"
# As URLs and JSON may write it too; the backslashes before the first one do not matter, and a pattern that
# began with them would take for ever where there are many.
_FIRST_SLASH = r"(?:/|%2[fF]|u002[fF])"
_SLASH = r"(?:\\*/|%2[fF]|\\+u002[fF])"
_TOKEN_IN_URL = re.compile(rf"({_FIRST_SLASH}callbacks{_SLASH}+)(?:(?!{_SLASH})[^\s?#\"'\\<>])+")


def mask_tokens(text: str) -> str:
    """Return `text` with the segment behind every `/callbacks/` masked, whoever's token it is."""
    if "callbacks" not in text:  # nearly always, and found out much faster than by the pattern
        return text
    return _TOKEN_IN_URL.sub(rf"\1{MASK}", text)


def may_hold_token(document: str) -> bool:
    """Tell whether a JSON text may hold a callback URL: it takes less time than to go through its strings."""
    return "callbacks" in document or "\\" in document  # an escape may hide any letter


def mask_tokens_within(value: Any) -> Any:
    """Return parsed JSON with every string in it masked, keys included."""
    if isinstance(value, str):
        return mask_tokens(value)
    if isinstance(value, list):
        return [mask_tokens_within(item) for item in value]
    if isinstance(value, dict):
        return {mask_tokens(key): mask_tokens_within(item) for key, item in value.items()}
    return value
