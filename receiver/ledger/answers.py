"""Says what upstream's items tell about each of the tasks that a look-up asked about. Pure."""

from typing import Any

from receiver.ledger.evidence import ABSENT, Answer
from receiver.upstream.results import Result, Unreadable, read_item


def match_answers(ids: list[str], items: list[Any]) -> dict[str, Answer]:
    """Match upstream's items to the ids asked about, by id alone. Items with other ids are dropped.

    Of several items with one id, the one that says most counts.
    """
    results: dict[str, Result] = {}
    for item in items:
        try:
            result = read_item(item)
        except Unreadable:
            continue
        known = results.get(result.task_id)
        if known is None or result.key > known.key:
            results[result.task_id] = result
    return {
        task_id: Answer(results[task_id]) if task_id in results else Answer(error=ABSENT) for task_id in ids
    }
