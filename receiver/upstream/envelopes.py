"""Keeps the envelope of a task object: its fields beside `response` and `request`. Pure."""

from collections.abc import Mapping
from typing import Any

from receiver.upstream.strict_json import dump
from receiver.upstream.submissions import bounded

# The envelope of an object that is its own response: it has no fields beside it.
OF_ITS_OWN_RESPONSE = "{}"
_KEPT_APART = ("response", "request")
_LONGEST = 16_384  # characters; upstream's take about 400


def envelope_of(task: Mapping[str, Any], response: object, request: object) -> str | None:
    """Return a task object's other fields as JSON, unknown ones included; None when they are too large.

    An empty response or request stands in it as upstream gave it: null, {} or not at all. Some clients tell
    these apart. The object must be masked already. `response` and `request` are those that were read from it.
    """
    if response is task:
        return OF_ITS_OWN_RESPONSE
    kept = {name: value for name, value in task.items() if name not in _KEPT_APART}
    for name, read in zip(_KEPT_APART, (response, request), strict=True):
        if name in task and not read:
            kept[name] = None if task[name] is None else {}
    text = dump(kept)
    if len(text) <= _LONGEST:
        return text
    shortened = bounded(kept)
    text = dump(shortened)
    return text if shortened.keys() == kept.keys() and len(text) <= _LONGEST else None
