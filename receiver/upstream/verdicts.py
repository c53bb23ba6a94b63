"""Decides whether a task is finished. Pure, with one rule set for all services and both witnesses.

The rules are those of upstream's published clients, and the functions below follow their order.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from receiver.clock import from_iso, from_unix, to_unix

PENDING, FAILED, SUCCEEDED = "pending", "failed", "succeeded"

_DONE = frozenset({"succeed", "succeeded", "success", "completed", "complete", "finished", "done", "ready"})
_FAILED = frozenset({"failed", "failure", "error", "cancelled", "canceled", "rejected"})
_WORDS_UNDER = ("state", "status")
_LINK_ENDS = ("_url", "_urls")
TEXT_NAMES = frozenset(
    {"descriptions", "prompts", "seed", "content", "translated_content", "lyric", "text", "html"}
)
_RESULT_NAMES = TEXT_NAMES | {"url", "b64_json", "solution", "token"}
# Values under these names are never results: they are errors or parts of the submission.
_NEVER_RESULTS = frozenset({"error", "callback_url", "request", "input", "inputs"})
_INPUTS = ("input_", "reference_", "first_image", "start_image", "end_image", "source_", "init_")
_NOTHING: frozenset[str] = frozenset()
_PERCENTAGE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,20})?) ?%?")
_LONGEST_TIME = 64  # characters

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a response says. `has_result` tells whether it holds something that the customer wants."""

    status: str
    progress: float | None
    has_result: bool
    error: Any = None


@dataclass(frozen=True, slots=True)
class _Facts:
    """The inputs of the rules."""

    words: frozenset[str]
    success: Any
    error: Any
    finished: bool
    progress: float | None
    has_result: bool
    refused: bool  # `response.status` is an HTTP error status, and there is a message

    @property
    def is_failure(self) -> bool:
        has_code = isinstance(self.error, dict) and self.error.get("code") not in (None, "")
        return self.success is False and (has_code or self.finished)


def judge(response: Object, item: Object, request: Object | None = None) -> Verdict:
    """Judge a task by its response and the Tasks API's item around it. Pass {} for either if it is missing.

    `request` only helps to tell results from inputs: a value that the response repeats from it is no result.
    """
    error = response.get("error") or item.get("error") or None
    progress = _progress_of(response, item)
    facts = _Facts(
        words=_words(response, item),
        success=response.get("success", item.get("success")),
        error=error,
        finished=finished_at(response, item) is not None,
        progress=progress,
        has_result=_has_result(response, frozenset(texts_in(request)) if request else _NOTHING),
        refused=_is_refusal(response),
    )
    return Verdict(_status(facts), progress, facts.has_result, error)


def finished_at(response: Object, item: Object) -> datetime | None:
    """Return when upstream finished the task, by the item or else the response; None when neither says."""
    return read_moment(item.get("finished_at")) or read_moment(response.get("finished_at"))


def read_moment(value: object) -> datetime | None:
    """Read Unix seconds or an ISO 8601 text; None for anything that cannot be a task's time."""
    if not isinstance(value, str):
        return from_unix(value)
    try:
        moment = from_iso(value.strip()[:_LONGEST_TIME])
        return from_unix(to_unix(moment))
    except (ValueError, OverflowError):
        return None


def read_progress(value: object) -> float | None:
    """Read a progress from 0 to 100 ("75%" is 75, 0.75 is 0.75); None for anything else."""
    if isinstance(value, str) and (match := _PERCENTAGE.fullmatch(value.strip())):
        value = float(match[1])
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        return None
    return float(value) + 0.0  # turns -0.0 into 0.0, as both must have the same bytes in `key`


def is_input(name: str) -> bool:
    """Tell whether a value of that name is an error or part of the submission, and so no result."""
    return name in _NEVER_RESULTS or name.startswith(_INPUTS)


def texts_in(value: Any) -> Iterator[str]:
    """Yield all texts in a value, except blank ones."""
    places = [value]
    while places:
        place = places.pop()
        if isinstance(place, str):
            if place.strip():
                yield place
        elif isinstance(place, list):
            places += place
        elif isinstance(place, dict):
            places += place.values()


def _status(facts: _Facts) -> str:
    return _by_failure(facts) or _by_words_and_progress(facts) or _by_success(facts) or PENDING


def _by_failure(facts: _Facts) -> str | None:
    """Apply the rules under which a task has failed, whatever else it says."""
    lost = facts.finished and not facts.has_result
    if facts.words and facts.words <= _FAILED:
        return FAILED
    return FAILED if facts.is_failure or (lost and (facts.error or facts.refused)) else None


def _by_words_and_progress(facts: _Facts) -> str | None:
    """Apply the rules under which a task is still running, with their exceptions."""
    if facts.words - _DONE - _FAILED:
        if not (facts.finished and facts.error):
            return PENDING
        return SUCCEEDED if facts.success is True and facts.has_result else FAILED
    return PENDING if facts.progress is not None and facts.progress < 100 else None


def _by_success(facts: _Facts) -> str | None:
    """Apply the rules for words of success and for results."""
    is_done = bool(facts.words & _DONE)
    if is_done and (facts.success is False or facts.error):
        return FAILED
    if is_done and facts.finished and not facts.has_result and facts.success is not True:
        return FAILED
    if facts.has_result and (facts.success is True or facts.finished or is_done):
        return SUCCEEDED
    return SUCCEEDED if facts.success is True and facts.finished else None


def _progress_of(response: Object, item: Object) -> float | None:
    progress = read_progress(response.get("progress"))
    return read_progress(item.get("progress")) if progress is None else progress


def _words(response: Object, item: Object) -> frozenset[str]:
    """Return the status words of the item, its response, `response.data` and its members; no deeper."""
    places: list[Any] = [response] if item is response else [response, item]
    if (data := response.get("data")) is not None:
        places.append(data)
        places += data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    told = [
        place[name]
        for place in places
        if isinstance(place, dict)
        for name in _WORDS_UNDER
        if name in place and isinstance(place[name], str)
    ]
    return frozenset(word for text in told if (word := text.strip().lower())) if told else _NOTHING


def _is_refusal(response: Object) -> bool:
    status = response.get("status")
    if not isinstance(status, int | float) or isinstance(status, bool):
        return False
    return status >= 400 and bool(response.get("message"))


def _has_result(response: Object, inputs: frozenset[str]) -> bool:
    places: list[Any] = [response]
    while places:
        place = places.pop()
        entries = place.items() if isinstance(place, dict) else (("", entry) for entry in place)
        for name, value in entries:
            if isinstance(value, str):
                found = value not in inputs and _is_name_of_result(name) and value.strip()
                if found and not is_input(name):
                    return True
            elif isinstance(value, dict | list) and not is_input(name):
                if _is_name_of_result(name) and not inputs.issuperset(texts_in(value)):
                    return True
                places.append(value)
    return False


def _is_name_of_result(name: str) -> bool:
    return name in _RESULT_NAMES or name.endswith(_LINK_ENDS)
