"""How fast and in how much memory the reconciler asks about many due tasks, on both databases."""

import math
import sys
import time
from datetime import datetime
from typing import Any, Literal

from bench.bulk import fetch
from bench.filling import Contents, all_due, item, task_id
from bench.processes import Running, environment
from bench.workbench import Workbench
from tests.upstream import Options, StandIn

BATCH_SIZE = 50
IN_FLIGHT = 8
LATENCY_SECONDS = 0.2
_KINDS: tuple[Literal["sqlite", "postgresql"], ...] = ("sqlite", "postgresql")
_LOOK_EVERY_SECONDS = 0.02

Row = dict[str, Any]


def run(bench: Workbench) -> dict[str, Any]:
    """Let the reconciler find out about ledgers full of due tasks, all of which upstream has finished."""
    few, many = bench.plan.due, bench.plan.many_due
    with StandIn(Options(latency=LATENCY_SECONDS)) as upstream:
        _plant(upstream, many)
        rows = [
            {"round": number, **_reconcile(bench, kind, upstream, few)}
            for number in range(bench.plan.rounds)
            for kind in _KINDS
        ]
        upstream.change(latency=0)
        memory = [_reconcile(bench, kind, upstream, due) for kind in _KINDS for due in (few, many)]
    bound = math.ceil(few / BATCH_SIZE) * LATENCY_SECONDS / IN_FLIGHT
    return {"rounds": rows, "bound_seconds": bound, "memory": memory}


def _plant(upstream: StandIn, tasks: int) -> None:
    record = item("any")  # one for all, but for the id: they are many
    for number in range(tasks):
        upstream.add_record(record | {"id": task_id(number)})


def _reconcile(bench: Workbench, kind: Literal["sqlite", "postgresql"], upstream: StandIn, due: int) -> Row:
    """Do one run in a process of its own; its time is the one in its row, without the process's start."""
    url = bench.ledgers.filled(kind, Contents(due, all_due))
    try:
        peak = _run_once(bench, url, upstream.url)
        query = "SELECT started_at, finished_at, settled, errors FROM reconcile_run ORDER BY id DESC LIMIT 1"
        ((started_at, finished_at, settled, errors),) = fetch(url, query)
    finally:
        bench.ledgers.drop(url)
    if (settled, errors) != (due, 0):
        raise RuntimeError(f"of {due} due tasks {settled} were settled, with {errors} errors")
    seconds = (_moment(finished_at) - _moment(started_at)).total_seconds()
    bench.say(f"{kind:20} {due} due tasks reconciled in {seconds:.2f} s, {peak / 2**20:.1f} MiB at most")
    return {"database": kind, "due": due, "seconds": seconds, "peak_bytes": peak}


def _run_once(bench: Workbench, url: str, upstream_url: str) -> int:
    """Let a reconciler do one run and return the most memory it had, in bytes."""
    environ = environment(
        url,
        ACEDATACLOUD_API_BASE_URL=upstream_url,
        RECONCILE_BATCH_SIZE=BATCH_SIZE,
        RECONCILE_CONCURRENCY=IN_FLIGHT,
        RECONCILE_MAX_RATE=0,
    )
    directory = bench.new_path("reconciler")
    directory.mkdir()
    peak = 0
    with Running(directory, [sys.executable, "-m", "reconcile", "--once"], environ, "reconcile") as running:
        while running.process.poll() is None:
            peak = _peak_bytes(running.process.pid) or peak
            time.sleep(_LOOK_EVERY_SECONDS)
        if running.process.returncode:
            raise RuntimeError(f"the reconciler failed:\n{running.log.read_text()}")
    return peak


def _peak_bytes(pid: int) -> int | None:
    """Return the most memory a process has had so far; None when it has ended.

    Not what waiting for it tells (ru_maxrss): that counts what its parent held when it was forked.
    """
    try:
        with open(f"/proc/{pid}/status") as status:
            kib = next((line.split()[1] for line in status if line.startswith("VmHWM:")), None)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(kib) * 1024 if kib else None


def _moment(value: datetime | str) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)
