"""Limits how much of a submission is stored: the pictures in a request are not results. Pure."""

from collections.abc import Mapping
from typing import Any

LONGEST_TEXT = 8192  # characters
_SHORT_TEXT = 256
_MOST_TEXT = 65536  # characters of all texts and names together
_MOST_ENTRIES = 2000
_BEGINNING = 64


def bounded(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request with its long texts shortened and marked.

    Of a request with too many entries only the names remain. The request must be masked already: shortening
    may cut a token's URL, which the mask would then miss.
    """
    for longest in (LONGEST_TEXT, _SHORT_TEXT):
        kept = _shortened(request, longest)
        texts, entries = _size(kept)
        if texts <= _MOST_TEXT and entries <= _MOST_ENTRIES:
            break
    else:
        names = [name[:_BEGINNING] for name in list(request)[:_SHORT_TEXT]]
        return {"not_kept": "The request is too large to be kept.", "names": names}
    result: dict[str, Any] = kept
    return result


def shorten(text: str, longest: int = LONGEST_TEXT) -> str:
    """Shorten a text that is too long to its beginning and a mark with its original length."""
    if len(text) <= longest:
        return text
    return f"{text[:_BEGINNING]}… (shortened, {len(text):,} characters)"


def _shortened(value: Any, longest: int) -> Any:
    if isinstance(value, str):
        return shorten(value, longest)
    if isinstance(value, list):
        return [_shortened(entry, longest) for entry in value]
    if isinstance(value, dict):
        return {shorten(name, longest): _shortened(entry, longest) for name, entry in value.items()}
    return value


def _size(value: Any) -> tuple[int, int]:
    texts = entries = 0
    places = [value]
    while places:
        place = places.pop()
        entries += 1
        if isinstance(place, str):
            texts += len(place)
        elif isinstance(place, list):
            places += place
        elif isinstance(place, dict):
            texts += sum(map(len, place))
            places += place.values()
    return texts, entries
