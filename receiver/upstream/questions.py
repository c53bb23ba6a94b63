"""Reads what a caller asks the Tasks API. Pure."""

from dataclasses import dataclass
from typing import Any, Literal

from receiver.upstream.results import clean_text
from receiver.upstream.strict_json import parse_json

# Ids that one look-up may name. Upstream's own client calls 50 the largest sensible batch.
MOST_IDS = 200


@dataclass(frozen=True, slots=True)
class Question:
    """A look-up: of one task, of several by id, or of the account's newest tasks (`is_list`).

    `by` is what the names are. `offset` and `limit` are those of the answer's page.
    """

    by: Literal["id", "trace_id"]
    names: tuple[str, ...]
    is_batch: bool = False
    offset: int = 0
    limit: int = 0

    @property
    def is_list(self) -> bool:
        return self.is_batch and not self.names


def read_question(body: bytes, default_limit: int) -> Question | None:
    """Return what a request's body asks. None for anything but a look-up: upstream decides about that."""
    try:
        asked = parse_json(body.decode("utf-8-sig"))
    except ValueError:
        return None
    if not isinstance(asked, dict):
        return None
    action = asked.get("action")
    if action is None or action == "retrieve":  # clients leave the action out
        return _one(asked)
    return _batch(asked, default_limit) if action == "retrieve_batch" else None


def _one(asked: dict[str, Any]) -> Question | None:
    # A trace id wins over an id; some clients say task_id for id.
    if trace_id := _name(asked.get("trace_id")):
        return Question("trace_id", (trace_id,))
    name = _name(asked.get("id")) or _name(asked.get("task_id"))
    return Question("id", (name,)) if name else None


def _batch(asked: dict[str, Any], default_limit: int) -> Question | None:
    page = (_whole(asked.get("offset"), 0), _whole(asked.get("limit"), 0) or default_limit)
    for by, given in (("trace_id", asked.get("trace_ids")), ("id", asked.get("ids"))):
        if not given:
            continue
        names = [_name(name) for name in given] if isinstance(given, list) else [None]
        if None in names or len(names) > MOST_IDS:
            return None
        named = tuple(dict.fromkeys(name for name in names if name))
        return Question("trace_id" if by == "trace_id" else "id", named, True, *page)
    return Question("id", (), True, *page)


def _name(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return clean_text(value)


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default
