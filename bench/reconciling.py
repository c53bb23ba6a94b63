"""How fast and in how much memory the reconciler asks about many due tasks, on both databases."""

import math
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.contenders import DATABASES, Kind
from bench.figures import Row, median, mib, number, pick, table
from bench.filling import BackstopContents, all_due, item, task_id
from bench.ledgers import fetch
from bench.processes import Running, environment
from bench.targets import memory_growth, share_of_bound
from bench.workbench import Workbench
from tests.upstream import Options, StandIn

_BATCH_SIZE = 50
_IN_FLIGHT = 8
_LATENCY_SECONDS = 0.2
_LOOK_EVERY_SECONDS = 0.02


def run(bench: Workbench) -> dict[str, Any]:
    """Let the reconciler find out about ledgers full of due tasks, all of which upstream has finished."""
    few, many = bench.plan.due, bench.plan.many_due
    with StandIn(Options(latency=_LATENCY_SECONDS)) as upstream:
        record = item("any")  # one for all, except the id: they are many
        for one in range(many):
            upstream.add_record(record | {"id": task_id(one)})
        rows = [
            {"round": number_of_round, **_reconcile(bench, kind, upstream.url, few)}
            for number_of_round in range(bench.plan.rounds)
            for kind in DATABASES
        ]
        upstream.change(latency=0)
        memory = [_reconcile(bench, kind, upstream.url, due) for kind in DATABASES for due in (few, many)]
    bound = math.ceil(few / _BATCH_SIZE) * _LATENCY_SECONDS / _IN_FLIGHT
    return {"rounds": rows, "bound_seconds": bound, "memory": memory}


def tell(part: Row) -> str:
    """Return the section on the reconciler's speed and memory."""
    rows = []
    for kind, title in DATABASES.items():
        seconds = median(pick(part["rounds"], database=kind), "seconds")
        speed = (number(seconds), number(share_of_bound(part, kind)))
        memory = [mib(row["peak_bytes"]) for row in pick(part["memory"], database=kind)]
        rows.append((title, *speed, *memory, number(memory_growth(part, kind))))
    few, many = (f"{row['due']:,}" for row in part["memory"][:2])
    head = ("", f"seconds for {few}", "of the bound", f"MiB with {few}", f"MiB with {many}", "times as much")
    return (
        "Batches of 50, 8 calls in flight, upstream answers each after 200 ms that its tasks are finished: so"
        f" {few} due tasks take {part['bound_seconds']:.2f} s at least. The memory is the most the"
        f" process had, with an upstream that answers at once.\n\n{table(head, rows)}"
    )


def _reconcile(bench: Workbench, kind: Kind, upstream_url: str, due: int) -> Row:
    """Do one run in a process of its own; its time is the one in its row, without the process's start."""
    url = bench.ledgers.copy(kind, BackstopContents(due, all_due))
    try:
        peak = _run_once(bench.new_path("reconciler"), url, upstream_url)
        query = "SELECT started_at, finished_at, settled, errors FROM reconcile_run ORDER BY id DESC LIMIT 1"
        ((started_at, finished_at, settled, errors),) = fetch(url, query)
    finally:
        bench.ledgers.drop(url)
    if (settled, errors) != (due, 0):
        raise RuntimeError(f"of {due} due tasks {settled} were settled, with {errors} errors")
    seconds = (_moment(finished_at) - _moment(started_at)).total_seconds()
    return bench.note({"database": kind, "due": due, "seconds": seconds, "peak_bytes": peak})


def _run_once(directory: Path, url: str, upstream_url: str) -> int:
    """Let a reconciler do one run and return the most memory it had, in bytes."""
    environ = environment(
        url,
        ACEDATACLOUD_API_BASE_URL=upstream_url,
        RECONCILE_BATCH_SIZE=_BATCH_SIZE,
        RECONCILE_CONCURRENCY=_IN_FLIGHT,
        RECONCILE_MAX_RATE=0,
    )
    directory.mkdir()
    peak = 0
    with Running(directory, environ, "-m", "reconcile", "--once") as running:
        while running.process.poll() is None:
            peak = max(peak, _peak_bytes(running.process.pid))
            time.sleep(_LOOK_EVERY_SECONDS)
        if running.process.returncode:
            raise RuntimeError(f"the reconciler failed:\n{running.log.read_text()}")
    return peak


def _peak_bytes(pid: int) -> int:
    """Return the most memory a process has had so far; 0 when it has ended.

    ru_maxrss does not tell: it counts what the parent held when it forked.
    """
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _moment(value: datetime | str) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)
