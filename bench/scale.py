"""What pages, lists and the reconciler's steps cost with a million tasks, beside few and none."""

import re
import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from flask.testing import FlaskClient

from bench.contenders import DATABASES, Kind
from bench.figures import Row, median_ms, number, table
from bench.filling import SPAN, BackstopContents, in_use, item, task_id
from bench.processes import API_KEY, environment
from bench.targets import STEPS, ledgers
from bench.workbench import Workbench
from receiver.app import create_app
from receiver.clock import utcnow
from receiver.config import Settings
from receiver.ledger import claims, runs, store
from receiver.ledger.engine.db import init_database, on_postgresql
from receiver.ledger.evidence import Answer
from receiver.ledger.models import database
from receiver.ledger.old import Old
from receiver.ledger.patience import Patience
from receiver.ledger.reading import queries
from receiver.upstream.results import read_item
from receiver.web.filters import cursor
from reconcile.upkeep import prune_old_rows

_BATCH_SIZE = 50
_LEASE = timedelta(minutes=2)
_WAIT = timedelta(hours=1)
_PATIENCE = Patience(backoff=lambda *_: _WAIT, give_up_after=timedelta(days=1), doubt_after=_WAIT)
_BEFORE_ANY_IS_DUE = datetime(2001, 1, 1)
_KEEP_ALL = Old(datetime(2001, 1, 1))
# In the order of next_lookup_at, so that what is due stands at their beginning.
_INDEXES_OF_DUE = re.compile(r"\b(task_overdue|task_unconfirmed|task_doubtful)\b")
_READS = re.compile(r"Scan (using|on)|Seq Scan|\bSEARCH|\bSCAN (?!CONSTANT)")


def run(bench: Workbench) -> dict[str, Any]:
    """Measure each step on an empty ledger, a small one and a large one; and see how due tasks are found."""
    rows: list[Row] = []
    plans: dict[str, Any] = {}
    for kind in DATABASES:
        for tasks in (0, bench.plan.few_tasks, bench.plan.many_tasks):
            with _bound(bench, kind, tasks) as client:
                times = _measure(client, tasks, bench.plan.repeats)
                rows.append(bench.note({"database": kind, "tasks": tasks, **times}))
                plans[kind] = _plan_of_due()  # the largest ledger's is the last
    return {"ledgers": rows, "plans": plans}


def tell(part: Row) -> str:
    """Return the section on steps and pages by the number of tasks."""
    measured = [row for kind in DATABASES for row in ledgers(part, kind)]
    sizes = [f"{DATABASES[row['database']]}, {row['tasks']:,}" for row in measured]
    steps = [
        (title, *(number(row[step]) if step in row else "" for row in measured))
        for step, title in STEPS.items()
    ]
    pages = [(name, *(number(row["pages"][name]) for row in measured)) for name in measured[0]["pages"]]
    return (
        "Medians, by the number of tasks, a tenth of which are due. What stands in a list takes time too: an"
        f" empty ledger has nothing to show.\n\n{table(['step, ms', *sizes], steps)}\n\n"
        f"{table(['page, ms', *sizes], pages)}"
    )


@contextmanager
def _bound(bench: Workbench, kind: Kind, tasks: int) -> Iterator[FlaskClient]:
    """Bind this process to a new ledger of so many tasks, and yield a client of the application."""
    url = bench.ledgers.make(kind, BackstopContents(tasks, in_use, deliveries=True))
    settings = Settings.from_env(environment(url, SPOOL_DIR=bench.directory / "spool"))
    try:
        init_database(url)  # the application before had another
        yield create_app(settings).test_client()
    finally:
        database.obj.close_all()
        bench.ledgers.drop(url)


def _measure(client: FlaskClient, tasks: int, repeats: int) -> Row:
    """Return the median time of each page and step in ms; an empty ledger has nothing to claim."""
    run_id = _settle_down()
    statuses = {200} if tasks else {200, 404}
    pages = {
        name: median_ms(partial(_get, client, path, statuses), repeats)
        for name, path in _addresses(tasks).items()
    }
    middle = queries.find_task(task_id(tasks // 2))
    deep = cursor((middle.created_at if middle else utcnow(), task_id(tasks // 2)))
    steps = {
        "nothing_due": median_ms(lambda: store.is_anything_due(_BEFORE_ANY_IS_DUE), repeats),
        "first_page": median_ms(lambda: _get(client, "/api/tasks"), repeats),
        "deep_page": median_ms(lambda: _get(client, f"/api/tasks?before={deep}"), repeats),
    }
    return {"pages": pages, **steps, **(_measure_reconciling(run_id, repeats) if tasks else {})}


def _settle_down() -> int:
    """Bring the ledger to where a reconciler would have brought it, and return the id of a run."""
    prune_old_rows(_KEEP_ALL, utcnow(), threading.Event())  # which also merges totals
    now = utcnow()
    run_id = runs.open_run("bench:1", now)
    runs.close_run(run_id, now, {})
    return run_id


def _addresses(tasks: int) -> dict[str, str]:
    """Return the address of each page, by its name. An empty ledger answers 404 for a task or delivery."""
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


def _measure_reconciling(run_id: int, repeats: int) -> dict[str, float]:
    """Return the median times of claiming and of applying a batch, in ms; each time it is another batch."""
    taken: list[store.Claim] = []
    claim = median_ms(lambda: taken.append(store.claim(utcnow(), limit=_BATCH_SIZE, lease=_LEASE)), repeats)
    if any(len(claimed.tasks) < _BATCH_SIZE for claimed in taken):
        raise RuntimeError("fewer tasks were due than were to be claimed")
    answers = [{one: Answer(read_item(item(one))) for one in claimed.ids} for claimed in taken]
    batches = iter(zip(taken, answers, strict=True))

    def apply() -> None:
        now = utcnow()
        store.apply(*next(batches), run_id, now, now, _PATIENCE)

    return {"claim": claim, "apply": median_ms(apply, repeats)}


def _plan_of_due() -> dict[str, Any]:
    """Return how the database sees that nothing is due, and whether by the indexes of what is due alone."""
    sql, values = claims._build_anything_due(_BEFORE_ANY_IS_DUE, _BEFORE_ANY_IS_DUE).sql()
    explain = "EXPLAIN" if on_postgresql() else "EXPLAIN QUERY PLAN"
    with database.connection_context():
        lines = [str(row[-1]) for row in database.execute_sql(f"{explain} {sql}", values).fetchall()]
    reads = [line for line in lines if _READS.search(line)]
    return {"plan": lines, "by_index": all(_INDEXES_OF_DUE.search(line) for line in reads)}


def _get(client: FlaskClient, path: str, statuses: Container[int] = (200,)) -> None:
    response = client.get(path, headers={"Authorization": f"Bearer {API_KEY}"})
    if response.status_code not in statuses:
        raise RuntimeError(f"{path} was answered {response.status}")
