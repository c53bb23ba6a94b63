"""How a route is described for openapi.json, and what many routes share. Plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from receiver.web.api.schemas import MOMENT, TEXT, Schema, named
from receiver.web.filters import MOST_LISTED

Access = Literal["nobody", "key", "caller", "token"]
Answers = Mapping[int, tuple[str, Schema]]


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a route. `answers` are those besides the errors that `access` brings.

    `endpoint` is Flask's name of the view. Parameters of the path are found in the path.
    """

    endpoint: str
    method: str
    path: str
    summary: str
    answers: Answers
    access: Access = "key"
    query: Mapping[str, Schema] = field(default_factory=dict)
    body: Schema | None = None
    kind: str = "application/json"  # the type of good answers


ERROR = named("Error")
LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": 50}
SPAN = {"since": MOMENT, "until": MOMENT}
PAGING = {"limit": LIMIT, "before": TEXT}
BAD = ("A parameter or the body is bad; the message says what to change.", ERROR)
TOO_LARGE = ("The body is over MAX_BODY_BYTES.", ERROR)


def no(what: str) -> tuple[str, Schema]:
    """Return the 404 of a kind of thing."""
    return (f"No such {what}.", ERROR)


def conflict(why: str) -> tuple[str, Schema]:
    """Return a 409."""
    return (why, ERROR)
