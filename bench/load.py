"""Puts load on a server with wrk, and checks that its ledger has what it acknowledged."""

import json
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench.ledgers import fetch
from bench.processes import API_KEY, CALLBACK_PATH, Server

_SCRIPT = Path(__file__).parent / "callbacks.lua"
_GATEWAY_SCRIPT = Path(__file__).parent / "gateway.lua"
_ANSWER_WITHIN_SECONDS = 60
_MOST_NAMED = 5


class BrokenPromise(Exception):
    """The server acknowledged callbacks that are not in its ledger or not on disk."""


@dataclass(frozen=True)
class Measured:
    """What a load saw. Times are in ms; `acknowledged` and `spooled` count answers 200 and 202 by task."""

    seconds: float
    p50: float
    p99: float
    refused: int  # any other answer
    broken: int  # connections that broke, answers that took too long
    acknowledged: Counter[str]
    spooled: Counter[str]

    def as_row(self) -> dict[str, Any]:
        """Return it for the results, with numbers in place of its lists."""
        return {
            "requests_per_second": round(self.acknowledged.total() / self.seconds, 1),
            "p50": round(self.p50, 3),
            "p99": round(self.p99, 3),
            "acknowledged": self.acknowledged.total(),
            "spooled": self.spooled.total(),
            "errors": self.spooled.total() + self.refused + self.broken,
        }


class Wrk:
    """wrk, started on a server; it ends with its context. The seed decides which tasks are called about."""

    def __init__(
        self,
        url: str,
        directory: Path,
        *,
        connections: int,
        threads: int,
        seconds: int,
        tasks: int,
        seed: int,
    ) -> None:
        directory.mkdir()
        self._lists = directory
        command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s"]
        command += ["--timeout", f"{_ANSWER_WITHIN_SECONDS}s", "-s", str(_SCRIPT), url]
        self._process = subprocess.Popen(
            [*command, "--", CALLBACK_PATH, str(tasks), str(seed), str(directory / "ids")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def finish(self) -> Measured:
        """Wait for its end and return what it saw."""
        output, _ = self._process.communicate()
        if "RESULT" not in output:
            raise RuntimeError(f"wrk failed:\n{output}")
        result = json.loads(output.partition("RESULT ")[2])
        acknowledged, spooled = self._listed("ids.*[0-9]"), self._listed("ids.*.spooled")
        if (acknowledged.total(), spooled.total()) != (result.pop("acknowledged"), result.pop("spooled")):
            raise RuntimeError("wrk's lists of ids are not complete")
        if not acknowledged and not spooled:
            raise RuntimeError(f"the server took in none of {result['refused']} requests")
        return Measured(**result, acknowledged=acknowledged, spooled=spooled)

    def _listed(self, pattern: str) -> Counter[str]:
        ids: Counter[str] = Counter()
        for path in self._lists.glob(pattern):
            ids.update(path.read_text().split())
        return ids


def ask(url: str, kind: str, *, connections: int, seconds: int, tasks: int = 1) -> dict[str, Any]:
    """Put load on the gateway, or on upstream itself, and return what wrk saw. Times are in ms.

    `kind`: `submission`, or `look-up` of one of so many tasks. Raises RuntimeError when a request fails.
    """
    seed = time.time_ns() % 1_000_000  # so that no submission repeats one of an earlier load
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", f"{_ANSWER_WITHIN_SECONDS}s"]
    command += ["-s", str(_GATEWAY_SCRIPT), url, "--", kind, str(tasks), str(seed), API_KEY]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    if "RESULT" not in output:
        raise RuntimeError(f"wrk failed:\n{output}")
    seen: dict[str, Any] = json.loads(output.partition("RESULT ")[2])
    if seen["errors"] or not seen["requests"]:
        raise RuntimeError(f"of {seen['requests']} requests {seen['errors']} failed")
    return {**seen, "requests_per_second": seen["requests"] / seen["seconds"]}


class Check:
    """Compares what a server acknowledges from now on with the deliveries that its ledger gets."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._last = 0
        if server.contender.ledger:
            ((self._last,),) = fetch(server.database_url, "SELECT COALESCE(MAX(id), 0) FROM delivery")

    def require_all(self, measured: Measured, spooled: bool = False) -> None:
        """Raise BrokenPromise unless each task has at least as many new deliveries as were acknowledged.

        It may have more: a request that was under way at the end is stored, and wrk saw no answer. With
        `spooled`, callbacks that were answered 202 count too; the spool must be empty then.
        """
        if not self._server.contender.ledger:
            return
        expected = measured.acknowledged + (measured.spooled if spooled else Counter())
        query = f"SELECT task_id, COUNT(*) FROM delivery WHERE id > {self._last} GROUP BY task_id"
        lost = expected - Counter(dict(fetch(self._server.database_url, query)))
        if lost:
            raise BrokenPromise(
                f"{self._server.contender.title} acknowledged {expected.total()} callbacks, of which"
                f" {lost.total()} are not in its ledger, such as {lost.most_common(_MOST_NAMED)}."
            )
