"""HTTP answers: whole ones, and those that are cut short or never come."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

JSON_HEADERS = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """One HTTP answer. `fate` says how much of it the caller receives."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: JSON_HEADERS)
    fate: Literal["whole", "cut", "hang"] = "whole"

    @property
    def label(self) -> str:
        """Name this answer for the statistics: its status or its fate."""
        return str(self.status) if self.fate == "whole" else self.fate


@dataclass(frozen=True)
class Stream:
    """One HTTP answer that is sent part by part, as the parts come."""

    status: int
    parts: Iterator[bytes]
    headers: Mapping[str, str]


_AnyAnswer = TypeVar("_AnyAnswer", bound=Answer | Stream)


def traced(answer: _AnyAnswer, trace_id: str) -> _AnyAnswer:
    """Return the answer with the header that names its trace."""
    return replace(answer, headers={**answer.headers, "X-Trace-Id": trace_id})


def json_answer(content: Any, status: int = 200) -> Answer:
    """Answer with JSON."""
    return Answer(status, json.dumps(content).encode())


def error_answer(status: int, code: str, message: str, trace_id: str | None = None) -> Answer:
    """Answer with the error body that every endpoint of upstream uses."""
    return json_answer(
        {"success": False, "error": {"code": code, "message": message}, "trace_id": trace_id}, status
    )


def bad_request(message: str) -> Answer:
    """Answer that the request itself is wrong."""
    return error_answer(400, "bad_request", message)
