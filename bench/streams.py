"""How soon apps hear of results that come one by one, and whether one that hangs delays the others."""

import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import urllib3

from bench.contenders import DATABASES, POSTGRESQL, SQLITE, Contender
from bench.figures import Row, median, number, pick, ratio, table
from bench.filling import BackstopContents, item, response, task_id
from bench.ledgers import fetch
from bench.processes import CALLBACK_PATH, Running, Server, environment
from bench.sink import run_sinks
from bench.workbench import Workbench
from tests.processes import free_port, wait_until
from tests.upstream import Options, StandIn

SECRET = "whsec_" + "c2VjcmV0" * 4
_ENDPOINTS = 10
_A_SECOND = 5
_TOLD_WITHIN_SECONDS = 30
_TIMES = (
    "SELECT task.settled_at, forward.happened_at, MIN(attempt.began_at) FROM forward"
    " JOIN task ON task.id = forward.task_id JOIN attempt ON attempt.forward_id = forward.id"
    " JOIN endpoint ON endpoint.id = forward.endpoint_id WHERE endpoint.url IN ({})"
    " GROUP BY forward.id, task.settled_at, forward.happened_at"
)


def run(bench: Workbench) -> list[Row]:
    """Send callbacks at a steady pace, with and without an app that hangs, confirmed and settled."""
    return [
        {"round": number_of_round, **_stream(bench, contender, hanging, when)}
        for number_of_round in range(bench.plan.stream_rounds)
        for contender in (SQLITE, POSTGRESQL)
        for hanging, when in ((0, "confirmed"), (1, "confirmed"), (0, "settled"))
    ]


def tell(rows: Sequence[Row]) -> str:
    """Return the section on how soon apps hear."""
    lines = []
    for kind, title in DATABASES.items():
        for when in ("confirmed", "settled"):
            alone, beside = (pick(rows, database=kind, hanging=hanging, when=when) for hanging in (0, 1))
            times = [
                f"{number(median(alone, f'{since}_p50'))} / {number(median(alone, f'{since}_p99'))}"
                for since in ("settlement", "event")
            ]
            lines.append(
                (f"{title}, {when}", *times, number(ratio("settlement_p99", beside, alone)) if beside else "")
            )
    head = ("", "s from settlement, p50 / p99", "s from the event, p50 / p99", "p99 if one hangs, times")
    return (
        f"How long until the first attempt, with {_A_SECOND} callbacks a second, {_ENDPOINTS} apps, default"
        " settings, and an upstream that answers in 200 ms. The last column compares the p99 from settlement,"
        f" at the apps that do not hang, with that when none does.\n\n{table(head, lines)}"
    )


def _stream(bench: Workbench, contender: Contender, hanging: int, when: str) -> Row:
    tasks = _A_SECOND * bench.plan.streamed
    url = bench.ledgers.copy(contender.database, BackstopContents(tasks, pending))
    ports = [free_port() for _ in range(_ENDPOINTS - hanging)]
    directory = bench.new_path("reconciler")
    directory.mkdir()
    try:
        with (
            StandIn(Options(latency=0.2)) as upstream,
            run_sinks(bench.new_path("sink"), ports),
            _hang(hanging) as silent,
        ):
            environ = environment(
                url,
                ACEDATACLOUD_API_BASE_URL=upstream.url,
                FORWARD_URL=addresses_of([*ports, *silent]),
                FORWARD_SECRET=SECRET,
                FORWARD_WHEN=when,
            )
            with (
                Server(contender, bench.new_path(contender.name), url, {}) as server,
                Running(directory, environ, "-m", "reconcile"),
            ):
                _send_callbacks(server.url, upstream, tasks)
                query = _TIMES.format(", ".join(map(repr, addresses_of(ports).split())))
                wait_until(lambda: len(fetch(url, query)) == tasks * len(ports), _TOLD_WITHIN_SECONDS)
                times = [[moment(value) for value in row] for row in fetch(url, query)]
    finally:
        bench.ledgers.drop(url)
    since_settlement = sorted((began - settled).total_seconds() for settled, _, began in times)
    since_event = sorted((began - happened).total_seconds() for _, happened, began in times)
    figures = {
        f"{since}_p{share}": waited[int(share / 100 * (len(waited) - 1))]
        for since, waited in (("settlement", since_settlement), ("event", since_event))
        for share in (50, 99)
    }
    return bench.note({"database": contender.database, "hanging": hanging, "when": when, **figures})


def pending(_: int) -> str:
    """Every task is open, and a callback settles it."""
    return "pending"


def _send_callbacks(url: str, upstream: StandIn, number_of_them: int) -> None:
    began = time.monotonic()
    with urllib3.PoolManager() as pool:
        for one in range(number_of_them):
            time.sleep(max(began + one / _A_SECOND - time.monotonic(), 0))
            upstream.add_record(item(task_id(one)))
            body = json.dumps(response(task_id(one)))
            answer = pool.request("POST", url + CALLBACK_PATH, body=body, retries=False, timeout=30)
            if answer.status != 200:
                raise RuntimeError(f"a callback was answered {answer.status}")


@contextmanager
def _hang(number_of_them: int) -> Iterator[list[int]]:
    """Listen on so many ports, and never answer."""
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=256) for _ in range(number_of_them)]
    try:
        yield [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


def addresses_of(ports: Sequence[int]) -> str:
    """Return FORWARD_URL for apps on these ports."""
    return " ".join(f"http://127.0.0.1:{port}/" for port in ports)


def moment(value: datetime | str) -> datetime:
    """Return a time as either database's driver reads it."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)
