"""When a task is finished, and how: upstream's own rules, for every service and both witnesses. Pure.

They are those of upstream's published clients (its SDK, MCP servers and web client), in their order.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from receiver.ledger.clock import from_iso, from_unix

STATUSES = PENDING, FAILED, SUCCEEDED, EXPIRED = "pending", "failed", "succeeded", "expired"

_DONE = frozenset({"succeed", "succeeded", "success", "completed", "complete", "finished", "done", "ready"})
_FAILED = frozenset({"failed", "failure", "error", "cancelled", "canceled", "rejected"})
_PERCENTAGE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,20})?) ?%?")
# Where a result is: any value under the first, a text under the second.
_LINKS = re.compile(r"(?:.*_)?urls?|b64_json")
_TEXTS = frozenset(
    ("descriptions", "prompts", "seed", "content", "translated_content", "lyric", "text", "html")
) | {"solution", "token"}
_NO_RESULT = frozenset({"error", "callback_url", "request", "input", "inputs"})
_SMALLEST_HTTP_ERROR = 400


@dataclass(frozen=True, slots=True)
class Told:
    """What one witness tells of a task. `item` is the task object around `response`; {} for a callback."""

    response: Mapping[str, Any]
    item: Mapping[str, Any]

    @property
    def error(self) -> Any:
        return self.response.get("error") or self.item.get("error")

    @property
    def progress(self) -> float | None:
        """Return the progress of 0 to 100; None where none is told."""
        progress = read_progress(self.response.get("progress"))
        return progress if progress is not None else read_progress(self.item.get("progress"))

    @property
    def finished_at(self) -> datetime | None:
        return read_moment(self.item.get("finished_at")) or read_moment(self.response.get("finished_at"))

    @property
    def has_result(self) -> bool:
        """Return whether the response holds what was asked for: a link or a text that no input was."""
        request = self.item.get("request")
        return any(True for _ in _results(self.response, set(_texts(request)) if request else set()))

    def words(self) -> Iterator[str]:
        """Return the words for the task's state and those of its parts."""
        data = self.response.get("data")
        members = data if isinstance(data, list) else data.values() if isinstance(data, dict) else ()
        for place in (self.item, self.response, data, *members):
            if isinstance(place, Mapping):
                for name in ("state", "status"):
                    word = place.get(name)
                    if isinstance(word, str) and (word := word.strip().lower()):
                        yield word


def told_by(document: Mapping[str, Any], is_item: bool) -> Told:
    """Return what a callback's body or a task object tells."""
    if not is_item:
        return Told(document, {})
    if document.keys().isdisjoint(("response", "request")):
        return Told(document, document)  # some services' objects are flat
    response = document.get("response")
    return Told(response if isinstance(response, Mapping) else {}, document)


def judge(told: Told) -> str:
    """Return whether the task is pending, failed or succeeded."""
    words = set(told.words())
    success, error, finished = told.response.get("success"), told.error, told.finished_at is not None
    if _has_failed(told, words, success, error, finished):
        return FAILED
    if not told.response:
        return PENDING  # whatever stands beside it: the rest of the answer is still to come
    if words - _DONE - _FAILED:
        if not (finished and error):
            return PENDING
        return SUCCEEDED if success is True and told.has_result else FAILED
    if told.progress is not None and told.progress < 100:
        return PENDING
    is_done = bool(words & _DONE)
    if is_done and (success is False or error):
        return FAILED
    if success is True and finished:
        return SUCCEEDED
    if (success is True or finished or is_done) and told.has_result:
        return SUCCEEDED
    return FAILED if is_done and finished and success is not True else PENDING


def _has_failed(told: Told, words: set[str], success: Any, error: Any, finished: bool) -> bool:
    if words and words <= _FAILED:
        return True
    if success is False and (finished or (isinstance(error, Mapping) and "code" in error)):
        return True
    if not finished or not told.response:
        return False
    status = told.response.get("status")
    is_http_error = isinstance(status, int) and status >= _SMALLEST_HTTP_ERROR and "message" in told.response
    return bool(error or is_http_error) and not told.has_result


def read_progress(value: object) -> float | None:
    """Read a progress of 0 to 100 ("75%" is 75, 0.75 is 0.75); None for anything else."""
    if isinstance(value, str) and (match := _PERCENTAGE.fullmatch(value.strip())):
        value = float(match[1])
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        return None
    return float(value) + 0.0  # -0.0 becomes 0.0: the key's bytes must not tell them apart


def read_moment(value: object) -> datetime | None:
    """Read a moment in Unix seconds or as ISO 8601 text, by default in UTC; None for anything else."""
    if not isinstance(value, str):
        return from_unix(value)
    try:
        return from_iso(value.strip())
    except (ValueError, OverflowError):
        return None


def _results(value: Any, inputs: set[str]) -> Iterator[Any]:
    if isinstance(value, list):
        for member in value:
            yield from _results(member, inputs)
    elif isinstance(value, Mapping):
        for name, member in value.items():
            if name in _NO_RESULT:
                continue
            if _is_result(name, member, inputs):
                yield member
            else:
                yield from _results(member, inputs)


def _is_result(name: str, value: Any, inputs: set[str]) -> bool:
    if _LINKS.fullmatch(name):
        return bool(value) and not (isinstance(value, str) and value in inputs)
    if name not in _TEXTS:
        return False
    texts = value if isinstance(value, list) else [value]
    return any(isinstance(text, str) and text and text not in inputs for text in texts)


def _texts(value: Any) -> Iterator[str]:
    """Return every text in parsed JSON, in no promised order."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, Mapping):
            waiting += value.values()
