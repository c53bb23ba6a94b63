"""Is what was acknowledged kept? Kills processes under load, and counts the fsyncs before answers."""

import time
from collections.abc import Callable
from typing import Any

from bench.contenders import CONTENDERS, POSTGRESQL, SQLITE, Contender
from bench.figures import Row, number, table
from bench.ledgers import Ledgers
from bench.load import BrokenPromise, Check
from bench.processes import Fsyncs, Server
from bench.workbench import Workbench

_CONNECTIONS = 16
_COUNTED_CONNECTIONS = (1, 64)
_TITLES = {contender.name: contender.title for contender in CONTENDERS}


def run(bench: Workbench) -> dict[str, Any]:
    """Kill and count, on both databases. Raises BrokenPromise."""
    kills: list[Row] = []
    for contender in (SQLITE, POSTGRESQL):
        kills.append(_kill(bench, contender, "a worker", Server.kill_worker))
        kills.append(_kill(bench, contender, "gunicorn's master", Server.kill_master))
    backend = "a backend of PostgreSQL"
    kills.append(_kill(bench, POSTGRESQL, backend, lambda _: bench.ledgers.postgresql.kill_backend()))
    return {"kills": kills, "fsyncs": [row for one in (SQLITE, POSTGRESQL) for row in _count(bench, one)]}


def tell(part: Row) -> str:
    """Return the section on kills and fsyncs."""
    kills = [
        (_TITLES[row["contender"]], row["victim"], *_counts(row, "acknowledged", "spooled", "missing"))
        for row in part["kills"]
    ]
    fsyncs = [
        (
            _TITLES[row["contender"]],
            *_counts(row, "connections", "acknowledged", "fsyncs"),
            number(row["acknowledged"] / max(row["fsyncs"], 1)),
        )
        for row in part["fsyncs"]
    ]
    killed = table(("", "killed with -9", "acknowledged", "spooled first", "missing"), kills, texts=2)
    counted = table(("", "connections", "acknowledged", "fsyncs", "requests for each fsync"), fsyncs)
    return (
        "After each load of this whole report the acknowledgements are compared with the deliveries in the"
        f" ledger, task by task. Here something is killed in the middle of a load.\n\n{killed}\n\n"
        f"All fsyncs of the web processes and of the database:\n\n{counted}"
    )


def _counts(row: Row, *names: str) -> list[str]:
    return [f"{row[name]:,}" for name in names]


def _kill(bench: Workbench, contender: Contender, victim: str, kill: Callable[[Server], None]) -> Row:
    """Kill the victim in the middle of a load, and compare when all is back and the spool is empty."""
    seconds = bench.plan.killed
    with bench.serve(contender) as server:
        bench.warm_up(server)
        check = Check(server)
        # As many threads as connections: so wrk knows which callbacks were spooled.
        with bench.start_load(server, _CONNECTIONS, seconds, threads=_CONNECTIONS) as wrk:
            time.sleep(seconds / 3)
            kill(server)
            measured = wrk.finish()
        server.wait_for_spool()
        check.require_all(measured, spooled=True)
    row = {"contender": contender.name, "victim": victim, **measured.as_row(), "missing": 0}
    return bench.note(row)


def _count(bench: Workbench, contender: Contender) -> list[Row]:
    """Count the fsyncs of the web processes, and of a PostgreSQL server that is started for this."""
    fsyncs = Fsyncs(bench.new_path("fsyncs"))
    with (
        Ledgers(bench.new_path("counted"), fsyncs.preload) as ledgers,
        bench.serve(contender, fsyncs.preload, ledgers) as server,
    ):
        bench.warm_up(server)
        return [_count_at(bench, server, connections, fsyncs) for connections in _COUNTED_CONNECTIONS]


def _count_at(bench: Workbench, server: Server, connections: int, fsyncs: Fsyncs) -> Row:
    before = fsyncs.count()
    acknowledged = bench.load(server, connections).acknowledged.total()
    counted = fsyncs.count() - before
    row = {"contender": server.contender.name, "connections": connections}
    row |= {"acknowledged": acknowledged, "fsyncs": counted}
    # With more connections several callbacks share a commit.
    if connections == 1 and counted < acknowledged:
        raise BrokenPromise(f"{acknowledged} callbacks were acknowledged after {counted} fsyncs")
    return bench.note(row)
