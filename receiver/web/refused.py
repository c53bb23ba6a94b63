"""Counts the requests to callback routes that are not taken in, until the ledger can be told of them.

The counts are in memory, a few numbers for each kind, so that no stranger can fill anything. The processes of
one server see each other's counts in memory that they share: while the disk is full, the page of one must
tell what another had to refuse.
"""

import json
import logging
import mmap
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime

from receiver.ledger import refusals
from receiver.ledger.clock import from_iso, utcnow
from receiver.ledger.db import DATABASE_AWAY
from receiver.ledger.redact import mask_tokens
from receiver.ledger.refusals import Refused

log = logging.getLogger(__name__)

WRITE_EVERY_SECONDS = 5.0
_LOG_EVERY_SECONDS = 60.0
_LONGEST_REASON = 200
_SLOT = 4096  # bytes: four kinds, each with an address and a reason
_WORDS = {
    refusals.NOT_KEPT: "callbacks could be kept neither in the database nor in the spool and are lost",
    refusals.WRONG_TOKEN: "requests came with a callback token that is not ours",
    refusals.NO_ROUTE: "requests under /callback met no route",
    refusals.SHORTENED: "callbacks of unknown tasks were kept by their beginning alone",
}


class Board:
    """Memory that the processes of a server share: each writes its counts into a slot of its own.

    It is made before the server forks. A slot outlives its process; the next one to have it goes on with it.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._memory = mmap.mmap(-1, slots * _SLOT)

    def write(self, slot: int, counted: Iterable[Refused]) -> None:
        text = json.dumps([asdict(one) for one in counted], default=datetime.isoformat).encode()
        if len(text) < _SLOT:
            self._memory[slot * _SLOT : (slot + 1) * _SLOT] = text.ljust(_SLOT, b"\0")

    def read(self, slot: int) -> list[Refused]:
        """Return what a slot holds; nothing when its process is just writing it."""
        text = bytes(self._memory[slot * _SLOT : (slot + 1) * _SLOT]).rstrip(b"\0")
        try:
            return [_refused(fields) for fields in json.loads(text or b"[]")]
        except (ValueError, TypeError, KeyError):
            return []


class RefusedRequests:
    """The counts of this process that are not in the ledger yet, and a view of the other processes'."""

    def __init__(self, board: Board | None = None, slot: int = 0) -> None:
        self._board = board or Board(1)
        self._slot = slot
        self._waiting = refusals.total(self._board.read(slot))
        self._lock = threading.Lock()
        self._logged: dict[str, tuple[float, int]] = {}  # by kind: when, and how many came since

    def join(self, board: Board, slot: int) -> None:
        """Share a board with other processes, from now on."""
        self._board, self._slot = board, slot
        self._waiting = refusals.total([*board.read(slot), *self._waiting.values()])

    def note(self, kind: str, remote_addr: str | None, reason: str | None = None) -> None:
        """Count one request. The log tells of it once a minute at most."""
        now = utcnow()
        one = Refused(
            kind,
            1,
            now,
            now,
            remote_addr and remote_addr[:60],
            reason and mask_tokens(reason)[:_LONGEST_REASON],
        )
        with self._lock:
            self._add([one])
        self._log(one)

    def everywhere(self) -> dict[str, Refused]:
        """Return what no process has written down yet, by kind."""
        slots = range(self._board.slots)
        return refusals.total(one for slot in slots for one in self._board.read(slot))

    def write_down(self) -> None:
        """Move the counts into the ledger. Raises what keeps it from taking them; then they stay here."""
        with self._lock:
            moved, self._waiting = self._waiting, {}
            try:
                if moved:
                    refusals.add(moved.values())
            except BaseException:
                self._add(moved.values())
                raise
            self._board.write(self._slot, self._waiting.values())

    def _add(self, counted: Iterable[Refused]) -> None:
        self._waiting = refusals.total([*self._waiting.values(), *counted])
        self._board.write(self._slot, self._waiting.values())

    def _log(self, one: Refused) -> None:
        logged_at, more = self._logged.get(one.kind, (-_LOG_EVERY_SECONDS, 0))
        if time.monotonic() - logged_at < _LOG_EVERY_SECONDS:
            self._logged[one.kind] = (logged_at, more + 1)
            return
        self._logged[one.kind] = (time.monotonic(), 0)
        level = logging.ERROR if one.kind == refusals.NOT_KEPT else logging.WARNING
        why = f": {one.reason}" if one.reason else ""
        log.log(level, "%s; %d, the last from %s%s", _WORDS[one.kind], more + 1, one.remote_addr, why)


def write_down_while_running(refused: RefusedRequests) -> None:
    """Move the counts into the ledger every few seconds, in a thread that ends with the process."""

    def work() -> None:
        while True:
            time.sleep(WRITE_EVERY_SECONDS)
            try:
                refused.write_down()
            except (*DATABASE_AWAY, OSError):
                pass  # /readyz, the pages and the log tell of the database; the counts wait here
            except Exception:
                log.exception("What was refused cannot be written down.")

    threading.Thread(target=work, name="refused", daemon=True).start()


def _refused(fields: dict[str, str | int]) -> Refused:
    times = {name: from_iso(str(fields.pop(name))) for name in ("first_at", "last_at")}
    return Refused(**fields, **times)  # type: ignore[arg-type]
