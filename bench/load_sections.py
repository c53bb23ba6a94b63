"""What the report says of the parts that put load on web processes."""

from collections.abc import Sequence
from typing import Any

from bench.contender import (
    CONTENDERS,
    NOTHING,
    SQLITE,
    TEXTBOOK,
    TEXTBOOK_FASTAPI,
    Contender,
)
from bench.ratios import Row, median, pick
from bench.tables import number, several, table
from bench.targets import P99, REQUESTS, compare, stalls_ratio

Part = dict[str, Any]

_TITLES = {contender.name: contender.title for contender in CONTENDERS}
_CONNECTIONS = (1, 16, 64)
_SLOW_CONNECTIONS = (16, 64)


def hot_path(part: Part) -> str:
    """Tell of callbacks a second, of all contenders."""
    head = (
        "",
        "served by",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "errors",
        "of doing nothing",
        "of textbook Flask",
    )
    rows = []
    for one in CONTENDERS:
        served = f"{part['workers']} x {one.served_by}"
        measured = _at_levels(part, one, _CONNECTIONS)
        ratios = (compare(part, REQUESTS, 64, one, other) for other in (NOTHING, TEXTBOOK))
        rows.append((one.title, served, *measured, *map(number, ratios)))
    return (
        "At 1 / 16 / 64 connections; the ratios are those of requests a second at 64. Greenlets serve a"
        " connection as long as it has a request ready, which gives the one that does nothing a long p99."
        f"\n\n{table(head, rows, texts=2)}\n\n![requests a second](hot_path.svg)"
    )


def slow_fsync(part: Part) -> str:
    """Tell of callbacks a second where each fsync takes longer."""
    if "skipped" in part:
        return f"Skipped: {part['skipped']}."
    head = ("", "requests/s", "p50 ms", "p99 ms", "errors", "of textbook Flask", "requests for each fsync")
    rows = []
    for one in (NOTHING, SQLITE, TEXTBOOK, TEXTBOOK_FASTAPI):
        at_64 = pick(part["rounds"], contender=one.name, connections=64)
        fsyncs = median(at_64, "fsyncs")
        shared = number(median(at_64, "acknowledged") / fsyncs) if fsyncs else ""
        ratio = number(compare(part, REQUESTS, 64, one, TEXTBOOK))
        rows.append((one.title, *_at_levels(part, one, _SLOW_CONNECTIONS), ratio, shared))
    return (
        f"Each fsync takes {part['added_ms']:g} ms longer. 16 / 64 connections; the last two columns at 64."
        f"\n\n{table(head, rows)}"
    )


def verify(part: Part) -> str:
    """Tell of kills and of fsyncs."""
    kills = [
        (_TITLES[row["contender"]], row["victim"], *_counts(row, "acknowledged", "spooled", "missing"))
        for row in part["kills"]
    ]
    head = ("", "killed with -9", "acknowledged", "spooled first", "missing")
    return (
        "After each load of this whole report the acknowledgements are compared with the deliveries in the"
        " ledger, task by task; here something is killed in the middle of it.\n\n"
        f"{table(head, kills, texts=2)}\n\n{_fsyncs(part)}"
    )


def _fsyncs(part: Part) -> str:
    if "skipped" in part:
        return f"Fsyncs were not counted: {part['skipped']}."
    rows = [
        (
            _TITLES[row["contender"]],
            *_counts(row, "connections", "acknowledged", "fsyncs"),
            number(row["acknowledged"] / max(row["fsyncs"], 1)),
        )
        for row in part["fsyncs"]
    ]
    head = ("", "connections", "acknowledged", "fsyncs", "requests for each fsync")
    return f"All fsyncs of the web processes and of the database:\n\n{table(head, rows)}"


def _counts(row: Row, *names: str) -> list[str]:
    return [f"{row[name]:,}" for name in names]


def stalls(part: Part) -> str:
    """Tell of callbacks beside clients that stall."""
    rows = []
    for stalling in sorted({row["stalling"] for row in part["rounds"]}):
        some = pick(part["rounds"], stalling=stalling)
        answered = [number(median(some, name)) for name in (REQUESTS, "p50", P99)]
        rows.append((f"{stalling} clients that stall", *answered, str(sum(row["errors"] for row in some))))
    ratio = f"p99 {number(stalls_ratio(part, P99))}, requests a second {number(stalls_ratio(part, REQUESTS))}"
    return (
        f"Backstop on SQLite, {part['connections']} connections; the clients come back when they are dropped."
        f" Ratios: {ratio}.\n\n{table(('', 'requests/s', 'p50 ms', 'p99 ms', 'errors'), rows)}"
    )


def _at_levels(part: Part, one: Contender, levels: Sequence[int]) -> list[str]:
    """Return requests a second, p50, p99 and errors at these numbers of connections."""
    rows = [pick(part["rounds"], contender=one.name, connections=connections) for connections in levels]
    cells = [several(median(some, field) for some in rows) for field in (REQUESTS, "p50", P99)]
    return [*cells, f"{sum(row['errors'] for some in rows for row in some):,}"]
