"""Do callbacks go on while old rows are deleted?"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.contenders import POSTGRESQL, SQLITE
from bench.figures import Row, median, number, pick, ratio, table
from bench.filling import BackstopContents, in_use
from bench.ledgers import fetch
from bench.processes import Server, environment
from bench.targets import P99, REQUESTS
from bench.workbench import Workbench

_CONNECTIONS = 16
_KEPT_DAYS = 1  # nearly all deliveries of the ledger are older
_BEGINS_WITHIN_SECONDS = 60
_LOOK_AGAIN_SECONDS = 0.1


def run(bench: Workbench) -> dict[str, Any]:
    """Put the same load on Backstop without and with pruning, in turn."""
    rows: list[Row] = []
    contents = BackstopContents(bench.plan.old, in_use, deliveries=True)
    for contender in (SQLITE, POSTGRESQL):
        url = bench.ledgers.copy(contender.database, contents)
        with Server(contender, bench.new_path(contender.name), url, {}) as server:
            bench.warm_up(server)
            for number_of_round in range(bench.plan.rounds):
                known = {"database": contender.database, "round": number_of_round}
                alone = bench.load(server, _CONNECTIONS)
                rows.append(bench.note({**known, "deleted_per_second": 0.0, **alone.as_row()}))
                rows.append(bench.note({**known, **_load_beside(bench, server, url)}))
        bench.ledgers.drop(url)
    return {"rounds": rows, "connections": _CONNECTIONS, "old": bench.plan.old}


def tell(part: Row) -> str:
    """Return the section on callbacks while old rows are deleted."""
    lines = []
    for database in ("sqlite", "postgresql"):
        rows = pick(part["rounds"], database=database)
        beside = [row for row in rows if row["deleted_per_second"]]
        alone = pick(rows, deleted_per_second=0.0)
        for name, some in (("alone", alone), ("beside pruning", beside)):
            medians = [number(median(some, field)) for field in (REQUESTS, "p50", P99, "deleted_per_second")]
            lines.append((f"{database}, {name}", *medians))
        lines.append(
            (
                f"{database}, ratio",
                number(ratio(REQUESTS, beside, alone)),
                "",
                number(ratio(P99, beside, alone)),
                "",
            )
        )
    heads = ("", "requests/s", "p50 ms", "p99 ms", "deleted rows/s")
    return f"Ledgers of {part['old']:,} tasks, {part['connections']} connections.\n\n{table(heads, lines)}"


def _load_beside(bench: Workbench, server: Server, url: str) -> Row:
    with _pruning(url, server.url):
        before, began = _oldest(url), time.monotonic()
        beside = bench.load(server, _CONNECTIONS)
        deleted, took = _oldest(url) - before, time.monotonic() - began
    return {"deleted_per_second": round(deleted / took, 1), **beside.as_row()}


@contextmanager
def _pruning(url: str, clock: str) -> Iterator[None]:
    """Delete old deliveries in a process of its own, which ends with the block. `clock` tells the time."""
    before = _oldest(url)
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "prune", "--older-than", str(_KEPT_DAYS)]
    with subprocess.Popen(
        command,
        env=environment(url) | {"ACEDATACLOUD_API_BASE_URL": clock},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            until = time.monotonic() + _BEGINS_WITHIN_SECONDS
            while _oldest(url) == before and process.poll() is None and time.monotonic() < until:
                time.sleep(_LOOK_AGAIN_SECONDS)
            yield
        finally:
            process.terminate()


def _oldest(url: str) -> int:
    """Return the number of the oldest delivery. Old ones go in order; counting them would be slow."""
    ((number_of_oldest,),) = fetch(url, "SELECT MIN(id) FROM delivery")
    return int(number_of_oldest)
