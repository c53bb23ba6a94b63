"""JSON as upstream writes it, read safely, and strict JSON as we keep it: pure."""

import json
import math
from typing import Any

from receiver.upstream.unreadable import Unreadable

_MAX_DEPTH = 64
# An empty object of 2 bytes takes 64 in memory: without a bound an answer would take far more than its size.
MAX_VALUES = 500_000


def parse_json(text: str) -> Any:
    """Parse JSON as upstream's clients do; what strict JSON cannot hold (NaN, 1e999) becomes None.

    Raises ValueError, also for what is nested too deeply to be handled safely.
    """
    # Each value but the first of a list or an object stands behind a bracket, a brace or a comma.
    if sum(map(text.count, "[{,")) > MAX_VALUES:
        raise Unreadable("too_many_values", f"The body holds more than {MAX_VALUES:,} values.")
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise Unreadable("nested_too_deeply", "The body is nested too deeply.") from None
    # What opens no more brackets than that cannot be nested deeper.
    if text.count("[") + text.count("{") > _MAX_DEPTH and _depth_exceeds(value, _MAX_DEPTH):
        raise Unreadable("nested_too_deeply", f"The body is nested more than {_MAX_DEPTH} levels deep.")
    return value


def dump(value: Any) -> str:
    """Write strict JSON that every database can hold."""
    # As short as it came: an escape takes three times the bytes of a letter that is not ASCII. A NUL stays an
    # escape. A lone surrogate becomes one: the error handler writes it as JSON does. No database holds them.
    return _ENCODER.encode(value).encode(errors="backslashreplace").decode()


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _whole(text: str) -> int | float | None:
    # int() refuses more than 4,300 digits; such a number is nobody's id or progress.
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


# Made once: that takes as long as to read or write a callback's body.
_DECODER = json.JSONDecoder(parse_constant=lambda _: None, parse_float=_finite, parse_int=_whole)
_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))
