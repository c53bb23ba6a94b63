"""Replays one file of the spool."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from receiver.file_lock import is_same_file, try_lock
from receiver.ledger.engine.errors import is_of_data
from receiver.ledger.store import Callback
from receiver.spool import records as spool_records
from receiver.spool.files import ASIDE, DAMAGED, REPLAYED, append

log = logging.getLogger(__name__)

Take = Callable[[Callback, datetime], Any]

_BYTES_AT_ONCE = 2**23


class Replay:
    """One file's, and what came of its spool_records."""

    def __init__(self, path: Path, take: Take, at_once: int) -> None:
        self._path = path
        self._take = take
        self._at_once = at_once
        self._counts: Counter[str] = Counter()

    def run(self) -> int:
        """Return how many deliveries were taken; raises what says that the database is away."""
        try:
            with open(self._path, "rb") as file:
                if not try_lock(file) or not is_same_file(file, self._path):
                    return 0  # another process has it, or finished it before it was ours
                while lines := list(self._portion(file)):
                    self._counts.update(_each_in_a_thread(self._replay_line, lines))
                self._dispose()
        except FileNotFoundError:
            return 0  # another process has finished it
        return self._counts["taken"]

    def _portion(self, file: BinaryIO) -> Iterator[bytes]:
        size = 0
        for line in islice(file, self._at_once):
            yield line
            size += len(line)
            if size > _BYTES_AT_ONCE:
                break

    def _replay_line(self, line: bytes) -> str:
        record = spool_records.decode(line)
        if record is None:
            return "damaged"
        try:
            self._take(*record)
        except Exception as problem:
            if not is_of_data(problem):
                raise
            if not self._counts["refused"]:  # there may be thousands
                log.exception("The database refuses a delivery of the spool.")
            (failed,) = append(self._path.with_name(ASIDE), [record])
            if failed is not None:
                raise failed from None
            return "refused"
        return "taken"

    def _dispose(self) -> None:
        if refused := self._counts["refused"]:
            log.error(
                "The database refuses deliveries: %d. They are kept in %s, and tried again when the web"
                " process starts.",
                refused,
                self._path.with_name(ASIDE),
            )
        if not self._counts["damaged"]:
            self._path.unlink()
            return
        kept = self._path.rename(self._path.with_name(self._path.name.replace(REPLAYED, DAMAGED)))
        log.error(
            "The spool held %d damaged record(s), as after a crash; they are kept in %s.",
            self._counts["damaged"],
            kept,
        )


def _each_in_a_thread(work: Callable[[bytes], str], lines: Sequence[bytes]) -> list[str]:
    """Let a thread each do the work on one line; raises the first problem when all have ended."""
    outcomes: list[str | Exception] = [""] * len(lines)
    all_are_there = threading.Event()

    def do(place: int) -> None:
        all_are_there.wait()
        try:
            outcomes[place] = work(lines[place])
        except Exception as problem:  # noqa: BLE001 - raised below
            outcomes[place] = problem

    # Daemons: a process that ends does not wait for them.
    threads = [threading.Thread(target=do, args=(place,), daemon=True) for place in range(1, len(lines))]
    for thread in threads:
        thread.start()
    all_are_there.set()  # or the first would be written before the last has begun
    do(0)
    for thread in threads:
        thread.join()
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return [str(outcome) for outcome in outcomes]
