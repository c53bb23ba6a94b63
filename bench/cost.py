"""What it costs to run: time to start, memory, and bytes on disk for each task."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from bench.contenders import DATABASES, POSTGRESQL, SQLITE, Contender, Kind
from bench.figures import Row, median, mib, number, pick, table
from bench.filling import BackstopContents, in_use, response, task_id, under_load
from bench.ledgers import fetch, is_sqlite, sqlite_path
from bench.processes import Running, environment
from bench.workbench import Workbench
from receiver.clock import utcnow
from receiver.ledger import store
from receiver.ledger.engine.db import init_database
from receiver.ledger.models import database
from receiver.ledger.timetable import Timetable
from tests.processes import wait_until
from tests.upstream import StandIn

_START_WITHIN_SECONDS = 30
_FIRST_RUN_SECONDS = 2
_THREADS = 32
_HEADERS = (
    ("Host", "backstop.example.com"),
    ("User-Agent", "python-requests/2.32.3"),
    ("Accept", "*/*"),
    ("Content-Type", "application/json"),
    ("Content-Length", "1200"),
)
_PROMPT = "a lighthouse at dusk " * 37  # makes a body of 1.2 KB
_GRACE = timedelta(minutes=3)


def run(bench: Workbench) -> dict[str, Any]:
    """Start the processes some times, and store some callbacks."""
    started: list[Row] = []
    with StandIn() as upstream:
        for _ in range(bench.plan.rounds):
            for contender in (SQLITE, POSTGRESQL):
                started.append(_start_web(bench, contender))
                started.append(_start_reconciler(bench, contender.database, upstream.url))
    return {"started": started, "bytes_per_task": {kind: _bytes_per_task(bench, kind) for kind in DATABASES}}


def tell(part: Row) -> str:
    """Return the section on start, memory and storage."""
    rows = []
    for process in ("web", "reconciler"):
        for kind, title in DATABASES.items():
            some = pick(part["started"], process=process, database=kind)
            memory = mib(median([row["used"] for row in some], "rss"))
            rows.append((f"{process}, {title}", number(median(some, "seconds")), memory))
    stored = "; ".join(
        f"{DATABASES[kind]} {size / 1024:.1f} KiB" for kind, size in part["bytes_per_task"].items()
    )
    return (
        "The web process's memory is that of a worker after load, the reconciler's that after its first run."
        f"\n\n{table(('', 'seconds to start', 'MiB in use'), rows)}\n\n"
        f"On disk for each task with one callback of 1.2 KB: {stored}."
    )


def _start_web(bench: Workbench, contender: Contender) -> Row:
    with bench.serve(contender) as server:
        bench.warm_up(server)
        return _started(bench, "web", contender.database, server.seconds_to_start, server.workers()[0])


def _start_reconciler(bench: Workbench, kind: Kind, upstream_url: str) -> Row:
    """Start the reconciler, whose first run finds nothing due."""
    directory = bench.new_path("reconciler")
    directory.mkdir()
    url = bench.ledgers.copy(kind, BackstopContents(bench.plan.tasks, under_load))
    environ = environment(url, ACEDATACLOUD_API_BASE_URL=upstream_url)
    began = time.monotonic()
    try:
        with Running(directory, environ, "-m", "reconcile") as running:
            wait_until(lambda: "Asking" in running.log.read_text(), _START_WITHIN_SECONDS, every=0.005)
            seconds = time.monotonic() - began
            time.sleep(_FIRST_RUN_SECONDS)
            return _started(bench, "reconciler", kind, seconds, psutil.Process(running.process.pid))
    finally:
        bench.ledgers.drop(url)


def _started(bench: Workbench, name: str, kind: Kind, seconds: float, process: psutil.Process) -> Row:
    used = process.memory_info()._asdict()
    return bench.note({"process": name, "database": kind, "seconds": seconds, "used": used})


def _bytes_per_task(bench: Workbench, kind: Kind) -> float:
    """Return by how many bytes the database grows with each task that is settled by one callback."""
    url = bench.ledgers.make(kind, BackstopContents(0, in_use))
    try:
        before = _size(url)
        init_database(url)
        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(_record, range(bench.plan.stored)))
        database.obj.close_all()
        grown = (_size(url) - before) / bench.plan.stored
    finally:
        database.obj.close_all()
        bench.ledgers.drop(url)
    bench.note({"database": kind, "bytes_per_task": grown})
    return grown


def _record(number_of_task: int) -> None:
    body = json.dumps(response(task_id(number_of_task)) | {"prompt": _PROMPT}).encode()
    callback = store.Callback(body=body, size=len(body), remote_addr="192.0.2.1", headers=_HEADERS)
    store.record(callback, utcnow(), timetable=Timetable(_GRACE), confirm=True)


def _size(url: str) -> int:
    if not is_sqlite(url):
        ((size,),) = fetch(url, "SELECT pg_database_size(current_database())")
        return int(size)
    fetch(url, "PRAGMA wal_checkpoint(TRUNCATE)")
    return Path(sqlite_path(url)).stat().st_size
