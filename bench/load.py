"""Puts load on a server with wrk, and tells how fast it was and which callbacks it acknowledged."""

import json
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.serving import CALLBACK_PATH

_SCRIPT = Path(__file__).parent / "callbacks.lua"
_ANSWER_WITHIN_SECONDS = 60


@dataclass(frozen=True)
class Load:
    """So many connections for so many seconds; `seed` decides which of so many tasks callbacks are about."""

    connections: int
    seconds: int
    tasks: int
    seed: int
    threads: int = 1


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

    @property
    def requests_per_second(self) -> float:
        return self.acknowledged.total() / self.seconds

    @property
    def errors(self) -> int:
        """Return how many requests were not answered 200."""
        return self.spooled.total() + self.refused + self.broken

    def as_row(self) -> dict[str, Any]:
        """Return it without its lists, for the results."""
        return {
            "requests_per_second": round(self.requests_per_second, 1),
            "p50": round(self.p50, 3),
            "p99": round(self.p99, 3),
            "acknowledged": self.acknowledged.total(),
            "spooled": self.spooled.total(),
            "errors": self.errors,
        }


class Wrk:
    """wrk at work on a server from now on; in its context, at the end of which it is ended."""

    def __init__(self, load: Load, url: str, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._lists = directory
        command = ["wrk", f"-t{load.threads}", f"-c{load.connections}", f"-d{load.seconds}s"]
        script = ["--timeout", f"{_ANSWER_WITHIN_SECONDS}s", "-s", str(_SCRIPT), url, "--", CALLBACK_PATH]
        self._process = subprocess.Popen(
            [*command, *script, str(load.tasks), str(load.seed), str(directory / "ids")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> "Wrk":
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
        if (acknowledged.total(), spooled.total()) != (result["acknowledged"], result["spooled"]):
            raise RuntimeError("wrk's lists of ids are not complete")
        if not result["acknowledged"] + result["spooled"]:
            raise RuntimeError(f"the server took in none of {result['refused']} requests")
        return Measured(
            result["seconds"],
            result["p50"],
            result["p99"],
            result["refused"],
            result["broken"],
            acknowledged,
            spooled,
        )

    def _listed(self, pattern: str) -> Counter[str]:
        ids: Counter[str] = Counter()
        for path in self._lists.glob(pattern):
            ids.update(path.read_text().split())
        return ids


def run_load(load: Load, url: str, directory: Path) -> Measured:
    """Put load on a server until it is over and return what it saw."""
    with Wrk(load, url, directory) as wrk:
        return wrk.finish()
