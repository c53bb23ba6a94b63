"""How fast events are told to the customer's app, and whether one that hangs delays the others."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.contenders import DATABASES, Kind
from bench.figures import Row, median, number, pick, ratio, table
from bench.filling import BackstopContents, all_due, item, task_id
from bench.ledgers import fetch
from bench.processes import Running, environment
from bench.workbench import Workbench
from tests.processes import free_port, wait_until
from tests.upstream import Options, StandIn

_SECRET = "whsec_" + "c2VjcmV0" * 4
_ENDPOINTS = 10


def run(bench: Workbench) -> dict[str, Any]:
    """Let single runs of the reconciler tell an app, and ten of which one may hang, about many results."""
    many, few = bench.plan.due, bench.plan.due // 50
    with StandIn(Options(latency=0)) as upstream:
        record = item("any")
        for one in range(many):
            upstream.add_record(record | {"id": task_id(one)})
        rows = [
            {"round": number_of_round, **_tell(bench, kind, upstream.url, events, endpoints, hanging)}
            for number_of_round in range(bench.plan.rounds)
            for kind in DATABASES
            for events, endpoints, hanging in ((many, 1, 0), (few, _ENDPOINTS, 0), (few, _ENDPOINTS, 1))
        ]
    return {"rounds": rows}


def tell(part: Row) -> str:
    """Return the section on telling the customer's app."""
    rows = []
    for kind, title in DATABASES.items():
        ours = pick(part["rounds"], database=kind)
        alone, beside = (
            pick(ours, endpoints=_ENDPOINTS, hanging=0),
            pick(ours, endpoints=_ENDPOINTS, hanging=1),
        )
        p99 = (number(median(alone, "p99")), number(ratio("p99", beside, alone)))
        rows.append((title, number(median(pick(ours, endpoints=1), "per_second")), *p99))
    head = ("", "events a second", f"p99 s to {_ENDPOINTS}", "times as long if another hangs")
    return (
        "One process tells an app that takes every event at once, on the same cores. Then it tells ten apps,"
        " of which one may hang: p99 is how long an event waited for its first attempt, at the apps that do"
        f" not hang.\n\n{table(head, rows)}"
    )


def _tell(bench: Workbench, kind: Kind, upstream_url: str, events: int, endpoints: int, hanging: int) -> Row:
    url = bench.ledgers.copy(kind, BackstopContents(events, all_due))
    ports = [free_port() for _ in range(endpoints - hanging)]
    try:
        with _sinks(bench.new_path("sink"), ports), _hang(hanging) as silent:
            addresses = [f"http://127.0.0.1:{port}/" for port in (*ports, *silent)]
            _run_once(bench.new_path("reconciler"), url, upstream_url, addresses)
        figures = _figures(url, [f"http://127.0.0.1:{port}/" for port in ports])
    finally:
        bench.ledgers.drop(url)
    if figures["delivered"] != events * len(ports):
        raise RuntimeError(f"of {events * len(ports)} forwards {figures['delivered']} were delivered")
    return bench.note({"database": kind, "endpoints": endpoints, "hanging": hanging, **figures})


@contextmanager
def _sinks(directory: Path, ports: list[int]) -> Iterator[None]:
    directory.mkdir()
    with Running(directory, environment("sqlite:////nowhere"), "-m", "bench.sink", *map(str, ports)) as sinks:
        wait_until(lambda: "listening" in sinks.log.read_text())
        yield


@contextmanager
def _hang(number_of_them: int) -> Iterator[list[int]]:
    """Listen on so many ports, and never answer."""
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=256) for _ in range(number_of_them)]
    try:
        yield [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


def _run_once(directory: Path, url: str, upstream_url: str, addresses: list[str]) -> None:
    environ = environment(
        url,
        ACEDATACLOUD_API_BASE_URL=upstream_url,
        RECONCILE_MAX_RATE=0,
        RECONCILE_CONCURRENCY=8,
        FORWARD_URL=" ".join(addresses),
        FORWARD_SECRET=_SECRET,
    )
    directory.mkdir()
    with Running(directory, environ, "-m", "reconcile", "--once") as running:
        if running.process.wait():
            raise RuntimeError(f"the reconciler failed:\n{running.log.read_text()}")


def _figures(url: str, addresses: list[str]) -> dict[str, float]:
    told = fetch(
        url,
        "SELECT forward.created_at, attempt.began_at, forward.ended_at FROM forward"
        " JOIN attempt ON attempt.forward_id = forward.id JOIN endpoint ON endpoint.id = forward.endpoint_id"
        f" WHERE forward.status = 'delivered' AND endpoint.url IN ({', '.join(map(repr, addresses))})",
    )
    times = [[_moment(value) for value in row] for row in told]
    waited = sorted((began - created).total_seconds() for created, began, _ in times)
    seconds = (max(row[2] for row in times) - min(row[0] for row in times)).total_seconds()
    return {
        "delivered": len(times),
        "per_second": len(times) / seconds,
        "p99": waited[int(0.99 * (len(waited) - 1))],
    }


def _moment(value: datetime | str) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)
