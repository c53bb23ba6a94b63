"""A sender of webhooks of the field: hookspool, which keeps them in SQLite and signs them too.

`python -m bench.hookspool N` queues that many events in $HOOKSPOOL_HOME.
"""

import os
import sqlite3
import sys
from pathlib import Path

import psutil
from hookspool.config import load_config
from hookspool.store import Store

from bench.figures import Row
from bench.filling import item, task_id
from bench.processes import Running, environment
from bench.sink import run_sinks
from bench.workbench import Workbench
from tests.processes import free_port, wait_until

_AT_ONCE = 8  # as many as Backstop has to one host
_WITHIN_SECONDS = 600
_CONFIG = """
[dispatch]
parallel = {at_once}
poll_s = 0.05
[coalesce]
max_events = 1
[alerts]
dry = true
[destinations.app]
type = "http"
url = "http://127.0.0.1:{port}/hooks"
allow_insecure = true
max_inflight = {at_once}
secret = {{ env = "BENCH_SECRET" }}
"""


def tell_all(bench: Workbench, events: int) -> Row:
    """Let hookspool tell one app about many events, and return how fast it was."""
    home, port = bench.new_path("hookspool"), free_port()
    home.mkdir()
    (home / "config.toml").write_text(_CONFIG.format(at_once=_AT_ONCE, port=port))
    environ = environment("", HOOKSPOOL_HOME=home, BENCH_SECRET="secret-of-the-benchmark")
    with Running(home, environ, "-m", "bench.hookspool", str(events)) as queueing:
        if queueing.process.wait():
            raise RuntimeError(f"hookspool took no events:\n{queueing.log.read_text()}")
    with (
        run_sinks(bench.new_path("sink"), [port]),
        Running(home, environ, "-m", "hookspool", "dispatch") as sender,
    ):
        wait_until(lambda: _told(home)[0] == events, _WITHIN_SECONDS, every=0.5)
        used = psutil.Process(sender.process.pid).cpu_times()
    _, seconds = _told(home)
    cpu_ms = 1000 * (used.user + used.system) / events
    return bench.note({"database": "hookspool", "per_second": events / seconds, "cpu_ms": cpu_ms})


def _told(home: Path) -> tuple[int, float]:
    """Return how many events have been told, and the seconds from the first attempt to the last."""
    with sqlite3.connect(home / "spool.db", timeout=30) as spool:
        told, began, ended = spool.execute(
            "SELECT COUNT(*), MIN(started_at), MAX(finished_at) FROM attempts WHERE outcome = 'ok'"
        ).fetchone()
    spool.close()
    return told, (ended or 0.0) - (began or 0.0)


def _queue(events: int) -> None:
    home = Path(os.environ["HOOKSPOOL_HOME"])
    store = Store(str(home / "spool.db"), load_config(str(home / "config.toml")))
    store.ensure_schema()
    for number in range(events):
        task = item(task_id(number))
        store.enqueue("app", task["id"], "app", {"type": "task.succeeded", "data": {"task": task}})
    store.close()


if __name__ == "__main__":
    _queue(int(sys.argv[1]))
