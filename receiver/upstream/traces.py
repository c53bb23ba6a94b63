"""Finds tasks at upstream by the trace ids of their submissions: by look-up, then in the service's list."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from receiver.upstream.client import Upstream
from receiver.upstream.results import Unreadable, read_item
from receiver.upstream.services import Lookups, Service

_SKEW = timedelta(minutes=1)
_MOST_LISTED = 100
MOST_TRACES = 50  # upstream's own client calls that the largest sensible batch


def can_find(service: Service) -> bool:
    """Tell whether upstream can be asked about trace ids of a service."""
    return service.lookups is Lookups.BATCH


def find_traces(
    upstream: Upstream,
    service: Service,
    sent_at: Mapping[str, datetime],
    before_list: Callable[[], None] = lambda: None,
) -> dict[str, list[str]]:
    """Return the ids of the tasks that were submitted with trace ids, MOST_TRACES at most, by trace id.

    `sent_at` tells when each was submitted: an older task with the same trace id is another. `before_list`
    is called before a second call, which asks for the list. Raises UpstreamError. What is not found then,
    upstream does not know now. Only services that are asked in batches can be asked so.
    """
    if not can_find(service) or not sent_at:
        return {}
    found = _matching(upstream.retrieve_by_trace(service, list(sent_at)), sent_at)
    if found.keys() == sent_at.keys():
        return found
    before_list()
    since = min(sent_at.values()) - _SKEW
    listed = upstream.list_recent(service, since=since, until=None, limit=_MOST_LISTED, offset=0)
    return _matching(listed, sent_at) | found


def _matching(items: Iterable[Any], sent_at: Mapping[str, datetime]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in items:
        try:
            result = read_item(item)
        except Unreadable:
            continue
        for trace_id in {result.trace_id, _asked_with(item)} & sent_at.keys():
            is_older = result.submitted_at and result.submitted_at < sent_at[trace_id] - _SKEW
            if not is_older:
                found.setdefault(trace_id, []).append(result.task_id)
    return found


def _asked_with(item: Any) -> Any:
    request = item.get("request")
    trace_id = request.get("trace_id") if isinstance(request, dict) else None
    return trace_id if isinstance(trace_id, str) else None
