"""Do callbacks go on while two hundred synchronous submissions wait for their results?"""

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

from bench.contenders import DATABASES, POSTGRESQL, SQLITE, Contender
from bench.figures import Row, median, number, pick, table
from bench.ledgers import fetch
from bench.processes import API_KEY, Server
from bench.sink import run_sinks
from bench.targets import P99, REQUESTS, held_ratio
from bench.workbench import Workbench
from tests.processes import free_port, wait_until

_SUBMISSIONS = 200
_CONNECTIONS = 16
_CONNECT_WITHIN_SECONDS = 30


def run(bench: Workbench) -> list[Row]:
    """Put the same load of callbacks on Backstop without and with submissions that wait, in turns."""
    port = free_port()
    with run_sinks(bench.new_path("upstream"), [port]):
        upstream = f"http://127.0.0.1:{port}"
        return [row for contender in (SQLITE, POSTGRESQL) for row in _measure(bench, contender, upstream)]


def tell(rows: Sequence[Row]) -> str:
    """Return the section on submissions that wait."""
    lines = []
    for kind, title in DATABASES.items():
        for held in (0, _SUBMISSIONS):
            some = pick(rows, database=kind, held=held)
            figures = [number(median(some, field)) for field in (REQUESTS, "p50", P99)]
            lines.append(
                (f"{title}, {held} that wait", *figures, number(held_ratio(rows, kind)) if held else "")
            )
    head = ("", "callbacks/s", "p50 ms", "p99 ms", "p99, times that alone")
    return (
        f"Callbacks over {_CONNECTIONS} connections, alone and beside {_SUBMISSIONS} synchronous submissions"
        f" whose results do not come.\n\n{table(head, lines)}"
    )


def _measure(bench: Workbench, contender: Contender, upstream: str) -> list[Row]:
    rows = []
    with bench.serve(contender, {"ACEDATACLOUD_API_BASE_URL": upstream}) as server:
        bench.warm_up(server)
        for one in range(bench.plan.rounds):
            row = {"round": one, "database": contender.database}
            alone = bench.load(server, _CONNECTIONS, bench.plan.asked)
            rows.append(bench.note({**row, "held": 0, **alone.as_row()}))
            with _submissions(server, one):
                beside = bench.load(server, _CONNECTIONS, bench.plan.asked)
            rows.append(bench.note({**row, "held": _SUBMISSIONS, **beside.as_row()}))
    return rows


@contextmanager
def _submissions(server: Server, number_of_round: int) -> Iterator[None]:
    """Let synchronous submissions wait for their results until the context ends."""
    with ExitStack() as stack:
        for one in range(_SUBMISSIONS):
            body = json.dumps({"prompt": f"a lighthouse at dusk, {number_of_round}-{one}"}).encode()
            client = socket.create_connection(("127.0.0.1", server.port), _CONNECT_WITHIN_SECONDS)
            stack.enter_context(closing(client)).sendall(_head(len(body)) + body)
        submitted = _SUBMISSIONS * (number_of_round + 1)
        query = "SELECT COUNT(*) FROM submission WHERE task_id IS NOT NULL"
        wait_until(lambda: fetch(server.database_url, query)[0][0] == submitted)
        yield


def _head(length: int) -> bytes:
    return (
        "POST /midjourney/imagine HTTP/1.1\r\nHost: held\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {API_KEY}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()
