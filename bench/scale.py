"""What pages, lists and the reconciler's steps cost with a million tasks, beside few and none."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench import steps
from bench.contender import Kind
from bench.filling import Contents, fill, in_use
from bench.processes import environment
from bench.workbench import Workbench
from receiver.app import create_app
from receiver.config import Settings
from receiver.ledger.models import database

_KINDS: tuple[Kind, ...] = ("sqlite", "postgresql")

Row = dict[str, Any]


def run(bench: Workbench) -> dict[str, Any]:
    """Measure each step on an empty ledger, a small one and a large one; and see how due tasks are found."""
    sizes = (0, bench.plan.few_tasks, bench.plan.many_tasks)
    rows: list[Row] = []
    plans: dict[str, Any] = {}
    for kind in _KINDS:
        for tasks in sizes:
            with _bound(bench, kind, tasks) as url:
                rows.append({"database": kind, "tasks": tasks, **_measure(bench, url, tasks)})
                plans[kind] = steps.plan_of_due()  # the last one's, the largest ledger's
            _say(bench, rows[-1])
    return {"ledgers": rows, "plans": plans}


@contextmanager
def _bound(bench: Workbench, kind: Kind, tasks: int) -> Iterator[str]:
    """Bind this process to a new ledger of so many tasks, a tenth of them due."""
    contents = Contents(tasks, in_use, deliveries=True)
    url = bench.ledgers.make(kind, lambda url: fill(url, contents))
    try:
        yield url
    finally:
        database.obj.close_all()
        bench.ledgers.drop(url)


def _measure(bench: Workbench, url: str, tasks: int) -> Row:
    """Return the median of each step in ms; there is nothing to claim in an empty ledger."""
    settings = Settings.from_env(environment(url, SPOOL_DIR=bench.directory / "spool"))
    client = create_app(settings).test_client()
    run_id = steps.settle_down()
    measured: Row = {"pages": steps.measure_page_times(client, tasks, bench.plan.repeats)}
    measured |= steps.measure_reads(client, tasks, bench.plan.repeats)
    return measured | (steps.measure_reconciling(run_id, bench.plan.repeats) if tasks else {})


def _say(bench: Workbench, row: Row) -> None:
    times = row | row["pages"]
    medians = "   ".join(f"{name} {value:.2f}" for name, value in times.items() if isinstance(value, float))
    bench.say(f"{row['database']:10} {row['tasks']:7} tasks, ms: {medians}")
