"""What every part of the benchmark works with: sizes, a directory, ledgers, and servers under load."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.contenders import Contender
from bench.figures import Row
from bench.filling import BackstopContents, TextbookContents, under_load
from bench.ledgers import Ledgers
from bench.load import Check, Measured, Wrk
from bench.processes import Server

_WARM_UP_CONNECTIONS = 16
_WARM_UP_SECONDS = 1
_NO_LEDGER = "sqlite:////nowhere"


@dataclass(frozen=True)
class Plan:
    """How much is measured; times are in seconds."""

    rounds: int = 5
    seconds: int = 5  # of load, each time
    asked: int = 3  # of load on the gateway, each time
    killed: int = 12  # of load in which something is killed
    streamed: int = 40  # of callbacks that come one by one, and whose events are told
    stream_rounds: int = 2
    stalled: int = 30  # of load beside stalled clients: several times as long as one may stall
    tasks: int = 200_000  # in the ledgers that take callbacks
    due: int = 10_000  # in the ledgers that are reconciled
    many_due: int = 200_000
    few_tasks: int = 10_000  # in the ledgers whose pages are compared with an empty one's
    many_tasks: int = 1_000_000
    repeats: int = 20  # of steps that take milliseconds
    old: int = 200_000  # tasks, most with a delivery, in the ledgers that are pruned
    stored: int = 5_000  # callbacks whose bytes are counted


SMOKE_TEST = Plan(
    rounds=1,
    seconds=1,
    asked=1,
    killed=6,
    stalled=10,
    streamed=4,
    stream_rounds=1,
    tasks=5_000,
    due=500,
    many_due=2_000,
    few_tasks=2_000,
    many_tasks=20_000,
    repeats=4,
    old=5_000,
    stored=300,
)


@dataclass
class Workbench:
    """A plan and the directory in which it is carried out."""

    plan: Plan
    directory: Path
    ledgers: Ledgers
    _began: float = field(default_factory=time.monotonic)
    _names: int = 0

    def note(self, row: Row) -> Row:
        """Print what has been measured, and return it."""
        words = (
            f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}"
            for name, value in row.items()
            if not isinstance(value, Mapping)
        )
        print(f"{time.monotonic() - self._began:6.0f} s  {', '.join(words)}", flush=True)
        return row

    def new_path(self, name: str) -> Path:
        """Return a path in the directory at which there is nothing yet."""
        self._names += 1
        return self.directory / f"{self._names:04}-{name}"

    @contextmanager
    def serve(
        self, contender: Contender, variables: Mapping[str, str] | None = None, ledgers: Ledgers | None = None
    ) -> Iterator[Server]:
        """Serve a contender over a fresh ledger of its own."""
        with (
            self._ledger(contender, ledgers or self.ledgers) as url,
            Server(contender, self.new_path(contender.name), url, variables or {}) as server,
        ):
            yield server

    @contextmanager
    def _ledger(self, contender: Contender, ledgers: Ledgers) -> Iterator[str]:
        if not contender.ledger:
            yield _NO_LEDGER
            return
        tasks = self.plan.tasks
        backstop = contender.ledger == "backstop"
        contents = BackstopContents(tasks, under_load) if backstop else TextbookContents(tasks)
        url = ledgers.copy(contender.database, contents)
        try:
            yield url
        finally:
            ledgers.drop(url)

    def start_load(self, server: Server, connections: int, seconds: int, threads: int = 1) -> Wrk:
        """Begin to put load on a server, about other tasks each time."""
        return Wrk(
            server.url,
            self.new_path("lists"),
            connections=connections,
            threads=threads,
            seconds=seconds,
            tasks=self.plan.tasks,
            seed=self._names,
        )

    def load(self, server: Server, connections: int, seconds: int | None = None) -> Measured:
        """Put load on a server and return what it saw. Raises BrokenPromise."""
        check = Check(server)
        with self.start_load(server, connections, seconds or self.plan.seconds) as wrk:
            measured = wrk.finish()
        check.require_all(measured)
        return measured

    def warm_up(self, server: Server) -> None:
        """Let a server open its connections and start its threads before it is measured."""
        self.load(server, _WARM_UP_CONNECTIONS, _WARM_UP_SECONDS)
