"""What every part of the benchmark works with: the plan, a directory, ledgers, and servers under load."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bench.checking import Check
from bench.contender import Contender
from bench.fsyncs import Fsyncs, build_library
from bench.ledgers import Ledgers
from bench.load import Load, Measured, Wrk
from bench.plan import Plan
from bench.serving import Server

_WARM_UP_CONNECTIONS = 16


@dataclass
class Workbench:
    """A plan and the directory in which it is carried out."""

    plan: Plan
    directory: Path
    ledgers: Ledgers
    began: float = field(default_factory=time.monotonic)
    _names: int = 0

    def say(self, line: str) -> None:
        """Tell whoever waits how far it has come."""
        print(f"{time.monotonic() - self.began:6.0f} s  {line}", flush=True)

    def new_path(self, name: str) -> Path:
        """Return a path in the directory at which there is nothing."""
        self._names += 1
        return self.directory / f"{self._names:04}-{name}"

    @cached_property
    def fsync_library(self) -> Path | None:
        """What counts fsyncs, compiled when it is first asked for."""
        return build_library(self.directory)

    def fsyncs(self, added_ms: float = 0) -> Fsyncs | None:
        """Return what counts the fsyncs of those it is preloaded into; None where it cannot be compiled."""
        return Fsyncs(self.fsync_library, self.new_path("fsyncs"), added_ms) if self.fsync_library else None

    @contextmanager
    def serve(
        self, contender: Contender, fsyncs: Fsyncs | None = None, ledgers: Ledgers | None = None
    ) -> Iterator[Server]:
        """Serve a contender over a fresh ledger of its own."""
        ledgers = ledgers or self.ledgers
        url = ledgers.of(contender, self.plan.tasks)
        try:
            preload = fsyncs.preload if fsyncs else None
            with Server(contender, self.new_path(contender.name), url, preload) as server:
                yield server
        finally:
            ledgers.drop(url)

    def start_load(self, server: Server, connections: int, seconds: int = 0, threads: int = 1) -> Wrk:
        """Begin to put load on a server, about other tasks each time."""
        lists = self.new_path("lists")
        load = Load(connections, seconds or self.plan.seconds, self.plan.tasks, self._names, threads)
        return Wrk(load, server.url, lists)

    def load(self, server: Server, connections: int, seconds: int = 0) -> Measured:
        """Put load on a server and return what came of it. Raises Lost when an acknowledgement was false."""
        check = Check(server)
        with self.start_load(server, connections, seconds) as wrk:
            measured = wrk.finish()
        check.require_all(measured)
        return measured

    def warm_up(self, server: Server) -> None:
        """Let a server open its connections and start its threads before it is measured."""
        self.load(server, _WARM_UP_CONNECTIONS, self.plan.warm_up)
