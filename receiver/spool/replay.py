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
from receiver.spool.files import ASIDE, DAMAGED, REPLAYED, TORN, append

log = logging.getLogger(__name__)

Take = Callable[[Callback, datetime], Any]

_BYTES_AT_ONCE = 2**23


class Replay:
    """The replay of one file, with counts of what became of its records."""

    def __init__(self, path: Path, take: Take, at_once: int) -> None:
        self._path = path
        self._take = take
        self._at_once = at_once
        self._counts: Counter[str] = Counter()

    def run(self) -> int:
        """Replay the file and return how many deliveries were taken. Raises errors of a database outage."""
        try:
            with open(self._path, "rb") as file:
                if not try_lock(file) or not is_same_file(file, self._path):
                    return 0  # another process replays it, or has just finished
                while lines := list(self._portion(file)):
                    self._counts.update(_each_in_a_thread(self._replay_line, lines))
                self._dispose()
        except FileNotFoundError:
            return 0  # another process has just finished
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
            # A torn one was not acknowledged: its sync never ended.
            return "damaged" if line.endswith(b"\n") else "torn"
        try:
            self._take(*record)
        except Exception as problem:
            if not is_of_data(problem):
                raise
            if not self._counts["refused"]:  # log the first only: there may be thousands
                log.exception("The database refuses a delivery of the spool.")
            (failed,) = append(self._path.with_name(ASIDE), [record])
            if failed is not None:
                raise failed from None
            return "refused"
        return "taken"

    def _dispose(self) -> None:
        if refused := self._counts["refused"]:
            log.error(
                "The database refused %d of the spool's deliveries. They are kept in %s and are retried when"
                " the web process starts.",
                refused,
                self._path.with_name(ASIDE),
            )
        if damaged := self._counts["damaged"]:
            text = "The spool held damaged records, maybe of acknowledged deliveries: %d. See %s."
            log.error(text, damaged, self._keep_as(DAMAGED))
        elif self._counts["torn"]:
            text = "A record of the spool was torn by a crash before it was acknowledged. It is kept in %s."
            log.warning(text, self._keep_as(TORN))
        else:
            self._path.unlink()

    def _keep_as(self, name: str) -> Path:
        return self._path.rename(self._path.with_name(self._path.name.replace(REPLAYED, name)))


def _each_in_a_thread(work: Callable[[bytes], str], lines: Sequence[bytes]) -> list[str]:
    """Do the work on each line in a thread of its own. When all have ended, raise the first error."""
    outcomes: list[str | Exception] = [""] * len(lines)
    all_are_there = threading.Event()

    def do(place: int) -> None:
        all_are_there.wait()
        try:
            outcomes[place] = work(lines[place])
        except Exception as problem:  # noqa: BLE001 - raised below
            outcomes[place] = problem

    # Daemons, so that the process does not wait for them at exit.
    threads = [threading.Thread(target=do, args=(place,), daemon=True) for place in range(1, len(lines))]
    for thread in threads:
        thread.start()
    all_are_there.set()  # start together, so that they are committed together
    do(0)
    for thread in threads:
        thread.join()
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return [str(outcome) for outcome in outcomes]
