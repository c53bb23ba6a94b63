"""Actions on tasks that the API and the pages share."""

from dataclasses import replace
from datetime import datetime

from werkzeug.exceptions import Conflict, NotFound

from receiver.clock import utcnow
from receiver.ledger import store
from receiver.ledger.models import Task
from receiver.ledger.reading import queries
from receiver.ledger.reading.listing import TaskFilter, find_ids
from receiver.upstream.results import is_storable
from receiver.web.offload import offload

MOST_ACKNOWLEDGED = 1000
_UNKNOWN = "No such task: it was never registered, and no callback named it."


def ask_or_404(task_id: str) -> datetime:
    """Make a task due now and return that moment: the reconciler's next run asks. 404: no such task."""
    now = utcnow()
    if not is_storable(task_id) or not store.ask_now(task_id, now):
        raise NotFound(_UNKNOWN)
    return now


def acknowledge_or_409(task_id: str) -> Task:
    """Acknowledge a task's dispute and return the task. 404: no such task. 409: it is not disputed."""
    find_or_404(task_id)
    store.acknowledge([task_id], utcnow())
    task = find_or_404(task_id)
    if not task.disputed:
        raise Conflict("This task is not disputed.")
    return task


def acknowledge_listed(wanted: TaskFilter) -> tuple[int, bool]:
    """Acknowledge the newest disputes that match a filter. Return how many, and whether there are more."""
    wanted = replace(wanted, disputed=None, acknowledged=False)
    task_ids, more = offload(find_ids, wanted, MOST_ACKNOWLEDGED)
    return store.acknowledge(task_ids, utcnow()), more


def find_or_404(task_id: str) -> Task:
    """Return the task. 404: we never heard of it."""
    task = queries.find_task(task_id) if is_storable(task_id) else None
    if task is None:
        raise NotFound(_UNKNOWN)
    return task
