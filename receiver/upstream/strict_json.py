"""Reads JSON as upstream writes it, safely, and writes the strict JSON that we store. Pure."""

import json
import math
from typing import Any

from receiver.upstream.unreadable import Unreadable

_MAX_DEPTH = 64
# An empty object takes 2 bytes of JSON and 64 of memory, so limiting the body's size is not enough.
MAX_VALUES = 500_000


def parse_json(text: str) -> Any:
    """Parse JSON as upstream's clients do. Numbers that strict JSON cannot hold (NaN, 1e999) become None.

    Raises ValueError; for too many values or too deep nesting it is an Unreadable.
    """
    # A bracket, a brace or a comma precedes every entry of a list or an object, so this limits the values.
    if sum(map(text.count, "[{,")) > MAX_VALUES:
        raise Unreadable("too_many_values", f"The body holds more than {MAX_VALUES:,} values.")
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise Unreadable("nested_too_deeply", "The body is nested too deeply.") from None
    # Only a text with more opening brackets than that can be nested deeper.
    if text.count("[") + text.count("{") > _MAX_DEPTH and _depth_exceeds(value, _MAX_DEPTH):
        raise Unreadable("nested_too_deeply", f"The body is nested more than {_MAX_DEPTH} levels deep.")
    return value


def dump(value: Any) -> str:
    """Write strict JSON that every database can store."""
    # Do not escape other letters: an escape takes up to three times their bytes. Databases reject NULs and
    # lone surrogates. JSON always escapes NUL, and the error handler writes a surrogate as a JSON escape.
    return _ENCODER.encode(value).encode(errors="backslashreplace").decode()


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _whole(text: str) -> int | float | None:
    # int() refuses more than 4,300 digits. No id or progress is so long.
    return int(text) if len(text) <= 4000 else None


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return False
    return True


# Built once: building one takes as long as parsing or writing a callback's body.
_DECODER = json.JSONDecoder(parse_constant=lambda _: None, parse_float=_finite, parse_int=_whole)
_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))
