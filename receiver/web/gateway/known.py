"""Finds the tasks that a caller names and the ledger knows, once upstream was asked about the open ones."""

from collections.abc import Collection, Mapping
from datetime import timedelta

from receiver.clock import utcnow
from receiver.ledger.models import Task
from receiver.ledger.reading.items import By, find_items, should_ask
from receiver.upstream.items import Item, Known, item_of, presented
from receiver.upstream.results import FINAL
from receiver.upstream.services import Service
from receiver.web.current import current_settings
from receiver.web.gateway.asking import current_asker

# What upstream said so short a time ago is still true. Upstream advises to look 5-10 s after the submission.
FRESH_FOR = timedelta(seconds=5)


def known_items(service: Service, by: By, names: Collection[str]) -> dict[str, Item]:
    """Return the items of the tasks that the ledger knows, by their names. This may wait for upstream."""
    found = find_items(service.name, by, names)
    now, confirm = utcnow(), current_settings().confirm_callbacks
    open_ids = [task.id for task in found.values() if should_ask(task, now, FRESH_FOR, confirm)]
    if open_ids:
        current_asker().ask(service, open_ids)
        found = find_items(service.name, by, names)
    return {name: item_of(_known(task), service) for name, task in found.items()}


def listed_items(service: Service, items: Mapping[str, object]) -> dict[str, object]:
    """Return items of upstream's list by their ids, with the results that the ledger knows instead."""
    known = find_items(service.name, "id", [task_id for task_id in items if task_id])
    return {task_id: _listed(item, known.get(task_id), service) for task_id, item in items.items()}


def _listed(item: object, task: Task | None, service: Service) -> object:
    if task is None:
        return presented(item, service)
    if task.status in FINAL:
        return item_of(_known(task), service)
    return presented(item, service, task.callback_url)


def _known(task: Task) -> Known:
    return Known(
        task.id,
        task.status,
        response=task.response,
        request=task.request,
        envelope=task.lookup_envelope,
        callback_url=task.callback_url,
        type=task.type,
        trace_id=task.trace_id,
        submitted_at=task.submitted_at,
        finished_at=task.finished_at,
    )
