"""Callbacks a second: all contenders, in interleaved rounds, on this disk and on a slower one."""

import os
from contextlib import ExitStack
from typing import Any

from bench.contender import CONTENDERS, NOTHING, SQLITE, TEXTBOOK, TEXTBOOK_FASTAPI, Contender
from bench.fsyncs import Fsyncs
from bench.serving import WORKERS, Server
from bench.workbench import Workbench

CONNECTIONS = (1, 16, 64)
SLOW_CONNECTIONS = (16, 64)
ADDED_MS = 2.0

Row = dict[str, Any]


def run(bench: Workbench) -> dict[str, Any]:
    """Measure all contenders."""
    rows: list[Row] = []
    for number in range(bench.plan.rounds):
        rows += _round(bench, number, CONTENDERS, CONNECTIONS, {})
    return {"rounds": rows, "workers": WORKERS}


def run_slow(bench: Workbench) -> dict[str, Any]:
    """Measure those who wait for the disk, with each fsync taking ADDED_MS longer."""
    contenders = (NOTHING, SQLITE, TEXTBOOK, TEXTBOOK_FASTAPI)
    if bench.fsyncs() is None:
        return {"skipped": "no C compiler is installed"}
    rows: list[Row] = []
    for number in range(bench.plan.rounds):
        counters = {contender.name: bench.fsyncs(ADDED_MS) for contender in contenders}
        rows += _round(bench, number, contenders, SLOW_CONNECTIONS, counters)
    return {"rounds": rows, "added_ms": ADDED_MS}


def _round(
    bench: Workbench,
    number: int,
    contenders: tuple[Contender, ...],
    levels: tuple[int, ...],
    counters: dict[str, Fsyncs | None],
) -> list[Row]:
    """Measure each contender once at each number of connections.

    All of them are up all the time and one of them is under load, so that those which are compared are
    measured within half a minute: a shared machine is faster at one time than at another.
    """
    with ExitStack() as stack:
        servers = [stack.enter_context(bench.serve(one, counters.get(one.name))) for one in contenders]
        for server in servers:
            bench.warm_up(server)
        return [
            {"round": number, **_measure(bench, server, connections, counters.get(server.contender.name))}
            for connections in levels
            for server in servers
        ]


def _measure(bench: Workbench, server: Server, connections: int, fsyncs: Fsyncs | None) -> Row:
    os.sync()  # what the one before has left to be written
    before = fsyncs.count() if fsyncs else 0
    measured = bench.load(server, connections)
    row = {"contender": server.contender.name, "connections": connections, **measured.as_row()}
    if fsyncs:
        row["fsyncs"] = fsyncs.count() - before
    bench.say(
        f"{server.contender.name:20} {connections:3} connections {measured.requests_per_second:8.0f} a second"
        f"   p50 {measured.p50:7.1f} ms   p99 {measured.p99:7.1f} ms   errors {measured.errors}"
    )
    return row
