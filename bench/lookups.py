"""How fast look-ups of settled tasks are answered, beside a Flask that does nothing."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from bench.contenders import NOTHING, POSTGRESQL, SQLITE, Contender
from bench.figures import Row, median, number, pick, table
from bench.filling import BackstopContents
from bench.forwarding import recovered
from bench.load import ask
from bench.processes import CALLBACK_PATH, Server
from bench.targets import REQUESTS, lookups_share
from bench.workbench import Workbench

_CONNECTIONS = (16, 64)
_PATH = "/midjourney/tasks"
_FEW = 500  # tasks, so that most answers are kept from an earlier question
_WARM_UP_SECONDS = 1


def run(bench: Workbench) -> list[Row]:
    """Ask Backstop about few tasks and about many, and a Flask that does nothing, in turns."""
    many = bench.plan.tasks
    with ExitStack() as stack:
        servers = [stack.enter_context(_serve(bench, one)) for one in (NOTHING, SQLITE, POSTGRESQL)]
        for server in servers:
            _ask(server, many, _CONNECTIONS[0], _WARM_UP_SECONDS)
        rows = []
        for one in range(bench.plan.rounds):
            for connections in _CONNECTIONS:
                for server in servers:
                    for tasks in (_FEW, many) if server.contender.ledger else (many,):
                        row = {"round": one, "connections": connections, "again": tasks == _FEW}
                        row |= {"contender": server.contender.name}
                        rows.append(bench.note(row | _ask(server, tasks, connections, bench.plan.asked)))
        return rows


def tell(rows: Sequence[Row]) -> str:
    """Return the section on look-ups."""
    lines = []
    for contender in (NOTHING, SQLITE, POSTGRESQL):
        for again in (True, False):
            if some := pick(rows, contender=contender.name, again=again):
                asked = "" if contender is NOTHING else f", {'few' if again else 'many'} tasks"
                lines.append((contender.title + asked, *_figures(rows, contender, some, again=again)))
    levels = " / ".join(map(str, _CONNECTIONS))
    head = ("", "requests/s", "CPU ms", "of Flask that does nothing")
    return (
        f"Look-ups of settled tasks. Figures are at {levels} connections. Of {_FEW} tasks"
        f" most answers are kept from an earlier question. Of many each is read.\n\n{table(head, lines)}"
    )


def _figures(rows: Sequence[Row], contender: Contender, some: Sequence[Row], *, again: bool) -> Iterator[str]:
    for field in (REQUESTS, "cpu_ms"):
        yield " / ".join(number(median(pick(some, connections=one), field)) for one in _CONNECTIONS)
    shares = (lookups_share(rows, contender, one, again=again) for one in _CONNECTIONS)
    yield " / ".join(map(number, shares))


@contextmanager
def _serve(bench: Workbench, contender: Contender) -> Iterator[Server]:
    if not contender.ledger:
        with bench.serve(contender) as server:
            yield server
        return
    url = bench.ledgers.copy(contender.database, BackstopContents(bench.plan.tasks, recovered))
    try:
        with Server(contender, bench.new_path(contender.name), url, {}) as server:
            yield server
    finally:
        bench.ledgers.drop(url)


def _ask(server: Server, tasks: int, connections: int, seconds: int) -> Row:
    path = _PATH if server.contender.ledger else CALLBACK_PATH
    before = server.cpu_seconds()
    seen = ask(server.url + path, "look-up", connections=connections, seconds=seconds, tasks=tasks)
    return {**seen, "cpu_ms": 1000 * (server.cpu_seconds() - before) / seen["requests"]}
