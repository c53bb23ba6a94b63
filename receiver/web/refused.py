"""Counts refused, lost and shortened callback requests in memory until they can go into the ledger.

There are only a few numbers for each kind, so that strangers cannot exhaust memory. The processes of one
server share their counts in shared memory: while the disk is full, the page of one process must show what
another refused.
"""

import fcntl
import json
import logging
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime

from receiver.clock import from_iso, utcnow
from receiver.ledger import refusals
from receiver.ledger.engine.errors import DATABASE_ERRORS
from receiver.ledger.refusals import Refused
from receiver.redact import mask_tokens

log = logging.getLogger(__name__)

WRITE_EVERY_SECONDS = 5.0
_WRITE_WITHIN_SECONDS = 5.0
_LOG_EVERY_SECONDS = 60.0
_LONGEST_REASON = 200
_SLOT = 4096  # bytes: a few kinds, each with an address, two with a reason
_LOG_TEXTS = {
    refusals.NOT_KEPT: "callbacks could be stored neither in the database nor in the spool and are lost",
    refusals.WRONG_TOKEN: "requests had a callback token that is not ours",
    refusals.NO_ROUTE: "requests under /callback matched no route",
    refusals.GUESSED: "requests with a wrong API key came too fast and got 429",
    refusals.UNKNOWN_REFUSED: "callbacks of unknown tasks, or of one task, came too fast and were not kept",
    refusals.UNKNOWN_SERVICE: "callbacks were kept whose URL names a service that is not known",
    refusals.SHORTENED: "large callbacks of unknown tasks, or of one task, were shortened to their beginning",
}


class Board:
    """Shared memory of a server's processes. Each writes its counts into a slot of its own.

    The server creates it before it forks. A slot outlives its process, and another process adopts its counts.
    """

    def __init__(self, slots: int, shared: bool = False) -> None:
        self.slots = slots
        self._memory = mmap.mmap(-1, slots * _SLOT)
        # A process owns a slot while it locks a byte of this file. The system releases the lock at its end.
        self._locks = _anonymous_file() if shared else None
        self._held: set[int] = set()

    def hold(self, slot: int) -> bool:
        """Take a slot for this process. Returns False when another live process owns it."""
        if slot in self._held:
            return False
        if self._locks is not None:
            try:
                fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
            except OSError:
                return False
        self._held.add(slot)
        return True

    def release(self, slot: int) -> None:
        """Release a slot without clearing it."""
        if self._locks is not None:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, slot)
        self._held.discard(slot)

    def take_orphans(self) -> list[tuple[int, list[Refused]]]:
        """Take the slots of processes that have ended, and return them with their counts."""
        filled = [slot for slot in range(self.slots) if self._memory[slot * _SLOT] and self.hold(slot)]
        return [(slot, self.read(slot)) for slot in filled]

    def write(self, slot: int, counted: Iterable[Refused]) -> None:
        """Replace a slot's counts."""
        fields = [asdict(one) for one in counted]
        text = json.dumps(fields, default=datetime.isoformat).encode() if fields else b""
        if len(text) < _SLOT:
            self._memory[slot * _SLOT : (slot + 1) * _SLOT] = text.ljust(_SLOT, b"\0")

    def read(self, slot: int) -> list[Refused]:
        """Return a slot's counts; [] while its process is writing them."""
        text = bytes(self._memory[slot * _SLOT : (slot + 1) * _SLOT]).rstrip(b"\0")
        try:
            return [_refused(fields) for fields in json.loads(text or b"[]")]
        except (ValueError, TypeError, KeyError):
            return []


class RefusedRequests:
    """This process's counts that are not in the ledger yet, and a view of the other processes' counts."""

    def __init__(self, board: Board | None = None, slot: int = 0) -> None:
        self._board = board or Board(1)
        self._slot = slot
        self._board.hold(slot)
        self._waiting = refusals.total(self._board.read(slot))
        self._moving: dict[str, Refused] = {}  # being written to the ledger now
        self._lock = threading.Lock()  # never held during a database call
        self._writing = threading.Lock()
        self._logged_at: dict[str, float] = {}  # by kind; monotonic
        self._unlogged: dict[str, Refused] = {}  # counted since then

    def join(self, board: Board) -> None:
        """Share a board with other processes from now on, if it has a free slot."""
        slot = next((slot for slot in range(board.slots) if board.hold(slot)), None)
        if slot is not None:
            with self._lock:
                self._board, self._slot = board, slot
                self._add(board.read(slot))

    def note(self, kind: str, remote_addr: str | None, reason: str | None = None) -> None:
        """Count one request. Each kind is logged once a minute at most."""
        now = utcnow()
        one = Refused(
            kind,
            1,
            now,
            now,
            remote_addr and remote_addr[:60],
            reason and " ".join(mask_tokens(reason).split())[:_LONGEST_REASON],  # one line: others choose it
        )
        with self._lock:
            self._add([one])
            self._unlogged = refusals.total([*self._unlogged.values(), one])
        self.log_rest()

    def unrecorded(self) -> dict[str, Refused]:
        """Return the counts of all processes that are not in the ledger yet, by kind."""
        slots = range(self._board.slots)
        return refusals.total(one for slot in slots for one in self._board.read(slot))

    def record(self) -> None:
        """Move the counts into the ledger. If that raises an error, they stay here."""
        if not self._writing.acquire(timeout=_WRITE_WITHIN_SECONDS):
            return  # another thread is writing them, and the database hangs
        try:
            self._adopt_orphans()
            with self._lock:
                self._moving, self._waiting = self._waiting, {}
            if self._moving:
                refusals.add(self._moving.values())
            with self._lock:
                self._moving = {}
        finally:
            with self._lock:
                kept, self._moving = self._moving, {}
                self._add(kept.values())
            self._writing.release()

    def log_rest(self) -> None:
        """Log the requests counted since the last log line of their kind, if that is a minute old."""
        with self._lock:
            rest = {kind: one for kind, one in self._unlogged.items() if self._may_log(kind)}
            for kind in rest:
                del self._unlogged[kind]
        for one in rest.values():
            self._log(one)

    def _adopt_orphans(self) -> None:
        for slot, counted in self._board.take_orphans():
            with self._lock:
                self._add(counted)
            self._board.write(slot, [])
            self._board.release(slot)

    def _add(self, counted: Iterable[Refused]) -> None:
        self._waiting = refusals.total([*self._waiting.values(), *counted])
        everything = refusals.total([*self._moving.values(), *self._waiting.values()])
        self._board.write(self._slot, everything.values())

    def _may_log(self, kind: str) -> bool:
        return time.monotonic() - self._logged_at.get(kind, -_LOG_EVERY_SECONDS) >= _LOG_EVERY_SECONDS

    def _log(self, one: Refused) -> None:
        self._logged_at[one.kind] = time.monotonic()
        level = logging.ERROR if one.kind == refusals.NOT_KEPT else logging.WARNING
        why = f": {one.reason}" if one.reason else ""
        log.log(level, "%s; %d, the last from %s%s", _LOG_TEXTS[one.kind], one.requests, one.remote_addr, why)


def record_while_running(refused: RefusedRequests) -> None:
    """Start a daemon thread that moves the counts into the ledger every few seconds."""

    def work() -> None:
        while True:
            time.sleep(WRITE_EVERY_SECONDS)
            refused.log_rest()
            try:
                refused.record()
            except (*DATABASE_ERRORS, OSError):
                pass  # /readyz, the pages and the log report the database's problem; the counts wait here
            except Exception:
                log.exception("The counts of refused requests cannot be recorded.")

    threading.Thread(target=work, name="refused", daemon=True).start()


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):  # Linux; it needs no disk, which may be full
        return os.memfd_create("backstop-refused")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _refused(fields: dict[str, str | int]) -> Refused:
    times = {name: from_iso(str(fields.pop(name))) for name in ("first_at", "last_at")}
    return Refused(**fields, **times)  # type: ignore[arg-type]
