"""What it costs to run: memory, time to start, and bytes on disk for each task."""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from bench.bulk import fetch, is_sqlite, sqlite_path
from bench.contender import POSTGRESQL, SQLITE, Contender, Kind
from bench.filling import Contents, fill, in_use, response, task_id
from bench.processes import Running, environment
from bench.serving import Server
from bench.workbench import Workbench
from receiver.clock import utcnow
from receiver.ledger import store
from receiver.ledger.engine.db import init_database
from receiver.ledger.models import database
from tests.processes import wait_until
from tests.upstream import StandIn

_KINDS: tuple[Kind, ...] = ("sqlite", "postgresql")
_START_WITHIN_SECONDS = 30
_FIRST_RUN_SECONDS = 2
_THREADS = 32
_BODY_BYTES = 1200
_HEADERS = (
    ("Host", "backstop.example.com"),
    ("User-Agent", "python-requests/2.32.3"),
    ("Accept", "*/*"),
    ("Content-Type", "application/json"),
    ("Content-Length", str(_BODY_BYTES)),
)
_GRACE = timedelta(minutes=3)

Row = dict[str, Any]


def run(bench: Workbench) -> dict[str, Any]:
    """Start the processes some times, and store some callbacks."""
    with StandIn() as upstream:
        started = [
            row
            for _ in range(bench.plan.rounds)
            for contender in (SQLITE, POSTGRESQL)
            for row in (_start_web(bench, contender), _start_reconciler(bench, contender, upstream.url))
        ]
    return {"started": started, "bytes_per_task": {kind: _bytes_per_task(bench, kind) for kind in _KINDS}}


def _start_web(bench: Workbench, contender: Contender) -> Row:
    """Start the web process; its memory is that of one worker, before and after load."""
    url = bench.ledgers.of(contender, bench.plan.tasks)
    server = Server(contender, bench.new_path(contender.name), url)
    try:
        seconds = server.start()
        idle = _memory(server.workers()[0])
        bench.warm_up(server)
        loaded = _memory(server.workers()[0])
    finally:
        server.stop()
        bench.ledgers.drop(url)
    row = {"process": "web", "database": contender.database, "seconds": seconds}
    return _started(bench, row, idle, loaded)


def _start_reconciler(bench: Workbench, contender: Contender, upstream_url: str) -> Row:
    """Start the reconciler; its memory is that before and after its first run, which finds nothing due."""
    url = bench.ledgers.of(contender, bench.plan.tasks)
    directory = bench.new_path("reconciler")
    directory.mkdir()
    environ = environment(url, ACEDATACLOUD_API_BASE_URL=upstream_url)
    began = time.monotonic()
    try:
        with Running(directory, [sys.executable, "-m", "reconcile"], environ, "reconcile") as running:
            wait_until(lambda: "Asking" in running.log.read_text(), _START_WITHIN_SECONDS, every=0.005)
            seconds = time.monotonic() - began
            process = psutil.Process(running.process.pid)
            idle = _memory(process)
            time.sleep(_FIRST_RUN_SECONDS)
            used = _memory(process)
    finally:
        bench.ledgers.drop(url)
    row = {"process": "reconciler", "database": contender.database, "seconds": seconds}
    return _started(bench, row, idle, used)


def _started(bench: Workbench, row: Row, idle: Row, used: Row) -> Row:
    bench.say(
        f"{row['process']} on {row['database']}: up after {row['seconds']:.2f} s,"
        f" {idle['rss'] / 2**20:.0f} MiB (PSS {idle['pss'] / 2**20:.0f}), used {used['rss'] / 2**20:.0f} MiB"
    )
    return {**row, "idle": idle, "used": used}


def _memory(process: psutil.Process) -> Row:
    memory = process.memory_full_info()
    return {"rss": memory.rss, "pss": memory.pss}


def _bytes_per_task(bench: Workbench, kind: Kind) -> float:
    """Return by how many bytes the database grows with each task that is settled by one callback."""
    url = bench.ledgers.make(kind, lambda url: fill(url, Contents(0, in_use)))
    try:
        before = _size(url)
        init_database(url)
        with ThreadPoolExecutor(_THREADS) as threads:
            for _ in threads.map(_record, range(bench.plan.stored)):
                pass
        database.obj.close_all()
        grown = (_size(url) - before) / bench.plan.stored
    finally:
        database.obj.close_all()
        bench.ledgers.drop(url)
    bench.say(f"{kind}: {grown:.0f} bytes a task with one callback of {_BODY_BYTES} bytes")
    return grown


def _record(number: int) -> None:
    body = json.dumps(response(task_id(number)) | {"prompt": ""}).encode()
    body = body.replace(b'"prompt": ""', b'"prompt": "%s"' % (b"x" * (_BODY_BYTES - len(body))))
    callback = store.Callback(body=body, size=len(body), remote_addr="192.0.2.1", headers=_HEADERS)
    store.record(callback, utcnow(), grace=_GRACE, confirm=True)


def _size(url: str) -> int:
    if not is_sqlite(url):
        ((size,),) = fetch(url, "SELECT pg_database_size(current_database())")
        return int(size)
    fetch(url, "PRAGMA wal_checkpoint(TRUNCATE)")
    return Path(sqlite_path(url)).stat().st_size
