"""Callbacks a second: all contenders, in interleaved rounds, on this disk and on a slower one."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from bench.contenders import CONTENDERS, NOTHING, SQLITE, TEXTBOOK, Contender
from bench.figures import Row, median, number, pick, table
from bench.processes import WORKERS, Fsyncs, Server
from bench.targets import P99, REQUESTS, compare
from bench.workbench import Workbench

_CONNECTIONS = (16, 64)
_ADDED_MS = 2.0
_AT = "Figures are at 16 / 64 connections"


def run(bench: Workbench) -> dict[str, Any]:
    """Measure all contenders."""
    return {"rounds": _rounds(bench, CONTENDERS, {})}


def run_slow(bench: Workbench) -> dict[str, Any]:
    """Measure Backstop and the textbook on SQLite, with each fsync taking _ADDED_MS longer."""
    preload = Fsyncs(bench.new_path("slow"), _ADDED_MS).preload
    return {"rounds": _rounds(bench, (SQLITE, TEXTBOOK), preload), "added_ms": _ADDED_MS}


def tell(part: Row) -> str:
    """Return the section on all contenders."""
    return (
        f"gunicorn serves each with {WORKERS} workers of greenlets, or of 32 threads. {_AT}, ratios at 64."
        " Greenlets serve a connection as long as it has a request ready: so the one that does nothing has a"
        f" long p99.\n\n{_table(part, NOTHING, TEXTBOOK)}"
    )


def tell_slow(part: Row) -> str:
    """Return the section on a slower disk."""
    told = f"Each fsync takes {part['added_ms']:g} ms longer. {_AT}, ratios at 64."
    return f"{told}\n\n{_table(part, TEXTBOOK)}"


def _rounds(bench: Workbench, contenders: Sequence[Contender], preload: Mapping[str, str]) -> list[Row]:
    """Measure each contender once a round at each number of connections.

    All of them are up all the time and one is under load, so that half a minute at most lies between two that
    are compared.
    """
    rows: list[Row] = []
    for number_of_round in range(bench.plan.rounds):
        with ExitStack() as stack:
            servers = [stack.enter_context(bench.serve(one, preload)) for one in contenders]
            for server in servers:
                bench.warm_up(server)
            for connections in _CONNECTIONS:
                for server in servers:
                    rows.append(_measure(bench, number_of_round, server, connections))
    return rows


def _measure(bench: Workbench, number_of_round: int, server: Server, connections: int) -> Row:
    os.sync()  # what the one before has not written yet
    measured = bench.load(server, connections).as_row()
    row = {"round": number_of_round, "contender": server.contender.name, "connections": connections}
    return bench.note({**row, **measured})


def _table(part: Row, *others: Contender) -> str:
    """Return a table of all that were measured; its last columns compare with the others."""
    head = ("", "requests/s", "p50 ms", "p99 ms", "errors", *(f"of {other.title}" for other in others))
    rows = []
    for one in CONTENDERS:
        if measured := pick(part["rounds"], contender=one.name):
            levels = [pick(measured, connections=connections) for connections in _CONNECTIONS]
            medians = [
                " / ".join(number(median(level, field)) for level in levels)
                for field in (REQUESTS, "p50", P99)
            ]
            errors = f"{sum(row['errors'] for level in levels for row in level):,}"
            ratios = [number(compare(part, REQUESTS, 64, one, other)) for other in others]
            rows.append((one.title, *medians, errors, *ratios))
    return table(head, rows)
