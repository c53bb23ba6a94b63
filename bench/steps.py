"""The steps whose times are compared between ledgers, on the ledger to which this process is bound."""

import base64
import json
import logging
import re
import statistics
import time
from collections.abc import Callable, Container
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from flask.testing import FlaskClient

from bench.filling import item, task_id
from bench.pages import addresses
from bench.processes import API_KEY
from receiver.clock import to_iso, utcnow
from receiver.ledger import runs, store
from receiver.ledger.engine.db import on_postgresql
from receiver.ledger.evidence import Answer
from receiver.ledger.models import database
from receiver.ledger.patience import Patience
from receiver.ledger.reading import queries
from receiver.upstream.results import read_item
from reconcile.jobs import prune_old_rows

BATCH_SIZE = 50
_LEASE = timedelta(minutes=2)
_WAIT = timedelta(hours=1)
_PATIENCE = Patience(backoff=lambda *_: _WAIT, give_up_after=timedelta(days=1), doubt_after=_WAIT)
_BEFORE_ANY_IS_DUE = datetime(2001, 1, 1)
_KEEP_ALL = timedelta(days=36_500)
# In the order of next_lookup_at, so that what is due stands at their beginning.
_INDEXES_OF_DUE = re.compile(r"\b(task_due|task_overdue|task_unconfirmed)\b")
_READS = re.compile(r"Scan (using|on)|Seq Scan|\bSEARCH|\bSCAN (?!CONSTANT)")


def settle_down() -> int:
    """Bring the ledger to where a reconciler would have brought it, and return the id of a run."""
    prune_old_rows(_KEEP_ALL, utcnow())  # it also joins totals that nobody needs apart
    now = utcnow()
    run_id = runs.open_run("bench:1", now)
    runs.close_run(run_id, now, {})
    return run_id


def measure_reads(client: FlaskClient, tasks: int, repeats: int) -> dict[str, float]:
    """Return the median times of what only reads, but for the pages, in ms."""
    deep = f"/api/tasks?before={_cursor(tasks // 2)}"
    return {
        "nothing_due": _median(lambda: store.is_anything_due(_BEFORE_ANY_IS_DUE), repeats),
        "first_page": _median(lambda: _get(client, "/api/tasks"), repeats),
        "deep_page": _median(lambda: _get(client, deep), repeats),
    }


def measure_page_times(client: FlaskClient, tasks: int, repeats: int) -> dict[str, float]:
    """Return the median times of the pages, in ms, by their names."""
    statuses = {200, 404} if tasks == 0 else {200}
    return {
        name: _median(partial(_get, client, path, statuses), repeats)
        for name, path in addresses(tasks).items()
    }


def measure_reconciling(run_id: int, repeats: int) -> dict[str, float]:
    """Return the median times of claiming and of applying a batch, in ms; each time it is another batch."""
    claims: list[store.Claim] = []
    claim = _median(lambda: claims.append(_claim()), repeats)
    if any(len(claimed.tasks) < BATCH_SIZE for claimed in claims):
        raise RuntimeError("fewer tasks were due than were to be claimed")
    answers = [{one: Answer(read_item(item(one))) for one in claimed.ids} for claimed in claims]
    batches = iter(zip(claims, answers, strict=True))
    return {"claim": claim, "apply": _median(lambda: _apply(*next(batches), run_id), repeats)}


def plan_of_due() -> dict[str, Any]:
    """Return how the database sees that nothing is due, and whether by the indexes of what is due alone."""
    statements = _Statements()
    with database.connection_context():
        with statements:
            store.is_anything_due(_BEFORE_ANY_IS_DUE)
        ((sql, values),) = [seen for seen in statements.seen if "next_lookup_at" in seen[0]]
        explain = "EXPLAIN" if on_postgresql() else "EXPLAIN QUERY PLAN"
        lines = [str(row[-1]) for row in database.execute_sql(f"{explain} {sql}", values).fetchall()]
    reads = [line for line in lines if _READS.search(line)]
    return {"sql": sql, "plan": lines, "by_index": all(_INDEXES_OF_DUE.search(line) for line in reads)}


class _Statements(logging.Handler):
    """Listens to what peewee executes, within its context."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.seen: list[Any] = []
        self._logger = logging.getLogger("peewee")

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.msg)

    def __enter__(self) -> "_Statements":
        self._level = self._logger.level
        self._logger.setLevel(logging.DEBUG)
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.setLevel(self._level)


def _median(step: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def _get(client: FlaskClient, path: str, statuses: Container[int] = (200,)) -> None:
    response = client.get(path, headers={"Authorization": f"Bearer {API_KEY}"})
    if response.status_code not in statuses:
        raise RuntimeError(f"{path} was answered {response.status}")


def _claim() -> store.Claim:
    now = utcnow()
    return store.claim(now, limit=BATCH_SIZE, lease=_LEASE)


def _apply(claimed: store.Claim, answers: dict[str, Answer], run_id: int) -> None:
    now = utcnow()
    store.apply(claimed, answers, run_id, now, now, _PATIENCE)


def _cursor(number: int) -> str:
    """Return the cursor behind a task, as the list of tasks gives it; in an empty ledger, behind no task."""
    task = queries.find_task(task_id(number))
    position = [to_iso(task.created_at if task else utcnow()), task_id(number)]
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()
