"""Is what was acknowledged kept? Processes are killed under load, and the fsyncs behind answers counted."""

import time
from collections.abc import Callable
from typing import Any

from bench.checking import Check
from bench.contender import POSTGRESQL, SQLITE, Contender
from bench.ledgers import Ledgers
from bench.serving import Server
from bench.workbench import Workbench

# As many threads as connections: so wrk knows which callbacks were spooled.
_CONNECTIONS = 16
COUNTED_CONNECTIONS = (1, 64)

Row = dict[str, Any]


class TooFewFsyncs(Exception):
    """Callbacks were acknowledged before they were on disk."""


def run(bench: Workbench) -> dict[str, Any]:
    """Kill and count, on both databases. Raises Lost or TooFewFsyncs when a promise was broken."""
    kills: list[Row] = []
    for contender in (SQLITE, POSTGRESQL):
        kills.append(_kill(bench, contender, "a worker", Server.kill_worker))
        kills.append(_kill(bench, contender, "gunicorn's master", Server.kill_master))
    kills.append(
        _kill(bench, POSTGRESQL, "a backend of PostgreSQL", lambda _: bench.ledgers.postgresql.kill_backend())
    )
    if bench.fsyncs() is None:
        return {"kills": kills, "skipped": "no C compiler is installed"}
    return {"kills": kills, "fsyncs": _count_sqlite(bench) + _count_postgresql(bench)}


def _kill(bench: Workbench, contender: Contender, victim: str, kill: Callable[[Server], None]) -> Row:
    """Kill the victim in the middle of a load, and compare when all is back and the spool is empty."""
    seconds = bench.plan.killed
    with bench.serve(contender) as server:
        bench.warm_up(server)
        check = Check(server)
        with bench.start_load(server, _CONNECTIONS, seconds, threads=_CONNECTIONS) as wrk:
            time.sleep(seconds / 3)
            kill(server)
            measured = wrk.finish()
        server.wait_for_spool()
        check.require_all(measured, spooled=True)
    row = {"contender": contender.name, "victim": victim, **measured.as_row(), "missing": 0}
    bench.say(
        f"{contender.name:20} kill -9 {victim}: {row['acknowledged']} acknowledged, {row['spooled']} spooled,"
        " none missing"
    )
    return row


def _count_sqlite(bench: Workbench) -> list[Row]:
    fsyncs = bench.fsyncs()
    assert fsyncs
    with bench.serve(SQLITE, fsyncs) as server:
        return _count(bench, server, fsyncs.count)


def _count_postgresql(bench: Workbench) -> list[Row]:
    """Count those of the database server too, since it is what writes."""
    fsyncs = bench.fsyncs()
    assert fsyncs
    with (
        Ledgers(bench.new_path("counted"), fsyncs.preload) as ledgers,
        bench.serve(POSTGRESQL, fsyncs, ledgers) as server,
    ):
        return _count(bench, server, fsyncs.count)


def _count(bench: Workbench, server: Server, count: Callable[[], int]) -> list[Row]:
    rows = []
    bench.warm_up(server)
    for connections in COUNTED_CONNECTIONS:
        before = count()
        acknowledged = bench.load(server, connections).acknowledged.total()
        fsyncs = count() - before
        row = {"contender": server.contender.name, "connections": connections}
        rows.append({**row, "acknowledged": acknowledged, "fsyncs": fsyncs})
        bench.say(f"{connections:3} connections: {acknowledged} acknowledged, {fsyncs} fsyncs")
        # Only where no two can share a commit.
        if connections == 1 and fsyncs < acknowledged:
            raise TooFewFsyncs(
                f"{server.contender.title} acknowledged {acknowledged} callbacks one after the other"
                f" and called fsync {fsyncs} times."
            )
    return rows
