"""The pages whose times are compared between ledgers: what each is called, and its address."""

from bench.filling import SPAN, task_id
from receiver.clock import utcnow


def addresses(tasks: int) -> dict[str, str]:
    """Return the address of each page in a ledger of so many tasks, by its name.

    An empty one has no task and no delivery, and says so.
    """
    until = utcnow() - SPAN / 2
    middle = task_id(tasks // 2 // 10 * 10 + 3)  # one that a callback has settled
    return {
        "overview": "/",
        "overview, a week": "/?span=7d",
        "tasks": "/tasks",
        "tasks, by status": "/tasks?status=pending",
        "tasks, never came": "/tasks?missed=true",
        "tasks, disputed": "/tasks?disputed=true",
        "tasks, by who settled": "/tasks?settled_by=callback",
        "tasks, of a type there is none of": "/tasks?type=none",
        "tasks, of a time": f"/tasks?until={until:%Y-%m-%dT%H:%M}",
        "tasks, found by id": f"/tasks?q={middle}",
        "tasks, found by a common word": "/tasks?q=lighthouse",
        "tasks, found by no word": "/tasks?q=nowhere",
        "a task": f"/tasks/{middle}",
        "a delivery": f"/deliveries/{tasks // 4 or 1}",
        "runs": "/runs",
        "runs that asked": "/runs?asked=true",
        "a run": "/runs/1",
    }
