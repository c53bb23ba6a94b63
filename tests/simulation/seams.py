"""Where a world takes hold of the product, all of it for as long as the world lives.

- The turn to write: other strands may run before it, and the process may die.
- The group commits: a strand writes the group, since there is one thread.
- The spool's write: it may be a process's last, also halfway, or find no room.
- The pause with which one process leaves the spool's lock to others: there are none.
- The moment in which a thread that has written lets others run: there are none, and it would take 0.1 ms.
- The length of a step of pruning: a chunk, however fast this machine is.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from receiver.ledger import pruning, record, submissions
from receiver.ledger.engine import db, sqlite
from receiver.spool import files, spool
from tests.simulation.clock import WorldClock
from tests.simulation.committing import CommitInOneThread
from tests.simulation.deaths import Deaths
from tests.simulation.faults import Faults
from tests.simulation.gateway import CommitOfEachProcess
from tests.simulation.watched import turn_of_the_world


@contextmanager
def seams(deaths: Deaths, faults: Faults, clock: WorldClock) -> Iterator[None]:
    """Take hold of the product, and let go of it afterwards."""
    with ExitStack() as stack:
        for place, name, ours in (
            (db, "sqlite_turn", lambda: turn_of_the_world(deaths)),
            (record, "_commits", None),  # each life of the web process makes its own
            (submissions, "_begin", CommitOfEachProcess(submissions._write_begun)),
            (submissions, "_accept", CommitOfEachProcess(submissions._write_accepted)),
            (sqlite, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: None)),
            (pruning, "STEP_SECONDS", 0.0),
            (spool, "GroupCommit", CommitInOneThread),
            (spool, "_GIVE_WAY_SECONDS", 0.0),
            (files, "_write", _write_or_die(deaths, faults, clock)),
        ):
            stack.enter_context(patch.object(place, name, ours))
        stack.callback(spool._appends.cache_clear)
        yield


def _write_or_die(deaths: Deaths, faults: Faults, clock: WorldClock) -> Any:
    write = files._write

    def write_or_die(file: Any, line: bytes) -> int:
        if faults.lasting("full_disk", clock):
            raise OSError(28, "No space left on device")
        if faults.has("deaths") and faults.happens("torn", clock):
            file.write(line[: int(len(line) * faults.rng("torn").random())])
            deaths.die("the spool's write has ended")
        deaths.before("the spool's write")
        written = write(file, line)
        deaths.before("the spool's sync")
        return written

    return write_or_die
