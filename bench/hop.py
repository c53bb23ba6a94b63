"""How much longer a submission takes through Backstop than to upstream itself, and its CPU time."""

from collections.abc import Sequence

from bench.contenders import DATABASES, POSTGRESQL, SQLITE, Contender
from bench.figures import Row, median, number, pick, ratio, table
from bench.load import ask
from bench.processes import Server
from bench.sink import run_sinks
from bench.workbench import Workbench
from tests.processes import free_port

_IN_FLIGHT = 16
_UPSTREAM_SECONDS = 0.05
_WARM_UP_SECONDS = 1
# What is sent through Backstop. The second path is unknown to it, and relayed as it is.
_PATHS = {"submitted": "/midjourney/imagine", "relayed": "/midjourney/describe"}
_DIRECT = "direct"
_TITLES = {_DIRECT: "to upstream itself", "relayed": "relayed as it is", "submitted": "a submission"}


def run(bench: Workbench) -> list[Row]:
    """Send the same requests to upstream itself and through Backstop, in turns."""
    port = free_port()
    with run_sinks(bench.new_path("upstream"), [port], _UPSTREAM_SECONDS):
        upstream = f"http://127.0.0.1:{port}"
        return [row for contender in (SQLITE, POSTGRESQL) for row in _measure(bench, contender, upstream)]


def tell(rows: Sequence[Row]) -> str:
    """Return the section on the hop."""
    lines = []
    for kind, title in DATABASES.items():
        some = pick(rows, database=kind)
        for way, words in _TITLES.items():
            ways = pick(some, way=way)
            times = ratio("p50", ways, pick(some, way=_DIRECT))
            figures = (median(ways, "p50"), median(ways, "p99"), times, median(ways, "cpu_ms"))
            lines.append((f"{title}, {words}", *map(number, figures)))
    head = ("", "p50 ms", "p99 ms", "p50, times direct", "CPU ms")
    return (
        f"{_IN_FLIGHT} requests in flight, and an upstream that answers in {_UPSTREAM_SECONDS * 1000:g} ms."
        f" The CPU time is that of Backstop's web processes.\n\n{table(head, lines)}"
    )


def _measure(bench: Workbench, contender: Contender, upstream: str) -> list[Row]:
    variables = {"ACEDATACLOUD_API_BASE_URL": upstream, "PUBLIC_URL": "https://backstop.example.com"}
    rows = []
    with bench.serve(contender, variables) as server:
        targets = {_DIRECT: upstream + _PATHS["submitted"]}
        targets |= {way: server.url + path for way, path in _PATHS.items()}
        for target in targets.values():
            _send(server, target, _WARM_UP_SECONDS)
        for one in range(bench.plan.rounds):
            for way, target in targets.items():
                row = {"round": one, "database": contender.database, "way": way}
                rows.append(bench.note({**row, **_send(server, target, bench.plan.asked)}))
    return rows


def _send(server: Server, target: str, seconds: int) -> Row:
    before = server.cpu_seconds()
    seen = ask(target, "submission", connections=_IN_FLIGHT, seconds=seconds)
    return {**seen, "cpu_ms": 1000 * (server.cpu_seconds() - before) / seen["requests"]}
