"""How fast events are told to the customer's app, how soon, and what the outbox costs the callbacks."""

import resource
from pathlib import Path
from typing import Any

from bench import hookspool, streams
from bench.contenders import DATABASES, POSTGRESQL, SQLITE, Contender, Kind
from bench.figures import Row, median, number, pick, ratio, table
from bench.filling import BackstopContents, under_load
from bench.ledgers import execute, fetch, is_sqlite
from bench.processes import Running, Server, environment
from bench.sink import run_sinks
from bench.targets import REQUESTS
from bench.workbench import Workbench
from tests.processes import free_port

_CONNECTIONS = 64
_CPU = "cpu_ms"
_FEWER = 5  # hookspool is slower, so it tells a fifth of the events


def run(bench: Workbench) -> dict[str, Any]:
    """Let a reconciler tell one app about many results, then ten apps about a stream, and load the outbox."""
    rounds = range(bench.plan.rounds)
    speed: list[Row] = []
    for one in rounds:
        speed += [{"round": one, **_tell_all(bench, kind)} for kind in DATABASES]
        speed.append({"round": one, **hookspool.tell_all(bench, bench.plan.due // _FEWER)})
    return {
        "speed": speed,
        "streams": streams.run(bench),
        "outbox": [
            {"round": one, **_load(bench, contender, has_outbox)}
            for one in rounds
            for contender in (SQLITE, POSTGRESQL)
            for has_outbox in (True, False)
        ],
    }


def tell(part: Row) -> str:
    """Return the section on telling the customer's app."""
    rows = []
    for kind, title in DATABASES.items():
        speed, outbox = pick(part["speed"], database=kind), pick(part["outbox"], database=kind)
        cost = ratio(_CPU, pick(outbox, outbox=True), pick(outbox, outbox=False))
        figures = (median(speed, "per_second"), median(speed, _CPU), cost)
        rows.append((title, *map(number, figures)))
    if beside := pick(part["speed"], database="hookspool"):  # earlier results have none
        figures_beside = (number(median(beside, name)) for name in ("per_second", _CPU))
        rows.append(("hookspool, on SQLite", *figures_beside, ""))
    head = ("", "events a second", "its CPU, ms each", "CPU of a callback, of that without the outbox")
    return (
        "One process tells an app that takes every event at once, on the same cores. The last column is about"
        f" the web process at {_CONNECTIONS} connections, with and without the triggers of the outbox."
        f"\n\n{table(head, rows)}\n\n{streams.tell(part['streams'])}"
    )


def recovered(_: int) -> str:
    """Upstream's answer has settled every task, so each has an event."""
    return "recovered"


def _tell_all(bench: Workbench, kind: Kind) -> Row:
    events = bench.plan.due
    url = bench.ledgers.copy(kind, BackstopContents(events, recovered))
    ports = [free_port()]
    try:
        with run_sinks(bench.new_path("sink"), ports):
            cpu = _run_once(bench.new_path("reconciler"), url, streams.addresses_of(ports))
        ((told, began, ended),) = fetch(
            url,
            "SELECT COUNT(*), MIN(created_at), MAX(ended_at) FROM forward WHERE status = 'delivered'",
        )
    finally:
        bench.ledgers.drop(url)
    if told != events:
        raise RuntimeError(f"of {events} events {told} were told")
    seconds = (streams.moment(ended) - streams.moment(began)).total_seconds()
    return bench.note({"database": kind, "per_second": told / seconds, _CPU: 1000 * cpu / told})


def _run_once(directory: Path, url: str, addresses: str) -> float:
    """Let a reconciler tell all, and return the CPU time that it took, in seconds."""
    environ = environment(url, FORWARD_URL=addresses, FORWARD_SECRET=streams.SECRET)
    directory.mkdir()
    before = _cpu_of_children()
    with Running(directory, environ, "-m", "reconcile", "--once") as running:
        if running.process.wait():
            raise RuntimeError(f"the reconciler failed:\n{running.log.read_text()}")
    return _cpu_of_children() - before


def _cpu_of_children() -> float:
    """Return the CPU time of the processes that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _load(bench: Workbench, contender: Contender, has_outbox: bool) -> Row:
    """Put load on the callbacks, with or without the triggers that write events."""
    url = bench.ledgers.copy(contender.database, BackstopContents(bench.plan.tasks, under_load))
    try:
        if not has_outbox:
            _drop_triggers(url)
        with Server(contender, bench.new_path(contender.name), url, {}) as server:
            bench.warm_up(server)
            before = server.cpu_seconds()
            measured = bench.load(server, _CONNECTIONS).as_row()
            cpu = server.cpu_seconds() - before
    finally:
        bench.ledgers.drop(url)
    row = {"database": contender.database, "outbox": has_outbox, REQUESTS: measured[REQUESTS]}
    return bench.note({**row, _CPU: 1000 * cpu / measured["acknowledged"]})


def _drop_triggers(url: str) -> None:
    kinds = ("insert_status", "insert_dispute", "update") if is_sqlite(url) else ("insert", "update")
    for kind in kinds:
        execute(url, f"DROP TRIGGER task_event_{kind}" + ("" if is_sqlite(url) else " ON task"))
