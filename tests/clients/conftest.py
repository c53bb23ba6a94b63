"""Where the clients are led: directly to the stand-in for upstream, or through a running Backstop."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients import environment
from tests.clients.environment import Finished
from tests.clients.mcp_session import McpSession
from tests.processes import Backstop
from tests.upstream import Options, StandIn

WORK = (0.2, 0.4)
FOREVER = (600.0, 600.0)


@dataclass(frozen=True)
class Place:
    """A base address for clients, and what stands behind it."""

    upstream: StandIn
    directory: Path
    backstop: Backstop | None
    token: str = "test-token"

    @property
    def running(self) -> str:
        """Return how upstream shows running tasks. Directly some of its forms are too much for its clients."""
        return "empty" if self.backstop is None else "any"

    @property
    def url(self) -> str:
        return self.upstream.url if self.backstop is None else self.backstop.url

    @property
    def is_gateway(self) -> bool:
        return self.backstop is not None

    def run(self, command: str, *arguments: str, token: str | None = None) -> Finished:
        return environment.run(self.url, token or self.token, self.directory, command, *arguments)

    def json(self, command: str, *arguments: str) -> Any:
        """Run a command with --json; return what it prints."""
        done = self.run(command, *arguments, "--json")
        assert done.code == 0, done
        return json.loads(done.out)

    def sdk(self, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
        return environment.call_sdk(self.url, self.token, self.directory, *calls)

    @contextlib.contextmanager
    def mcp(self) -> Iterator[McpSession]:
        with McpSession(self.url, self.token, self.directory) as session:
            yield session


@pytest.fixture(scope="module", params=["direct", "gateway"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One stand-in, and for `gateway` a Backstop before it, for all tests of a module."""
    if not environment.is_installed():
        assert not os.environ.get("CI"), environment.MISSING
        pytest.skip(environment.MISSING)
    directory = tmp_path_factory.mktemp(request.param)
    with StandIn(Options(work=WORK, latency=0.0)) as upstream:
        if request.param == "direct":
            upstream.change(running="empty")
            yield Place(upstream, directory, None)
            return
        reconciles = getattr(request.module, "RECONCILES", True)
        with Backstop(directory, upstream.url, RECONCILE_IN_WEB=reconciles) as backstop:
            backstop.migrate()
            backstop.start_web()
            yield Place(upstream, directory, backstop)


@pytest.fixture(autouse=True)
def usual_upstream(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test upstream works as usual again."""
    yield
    if "place" in request.fixturenames:
        place: Place = request.getfixturevalue("place")
        usual = {"work": WORK, "running": place.running, "lost": 0.0, "failing": 0.0, "progress": 0.0}
        place.upstream.change(**usual, rate_bare=0.0)
