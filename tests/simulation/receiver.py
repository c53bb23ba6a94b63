"""The web process: it takes callbacks and registrations, replays the spool, and keeps nothing else in memory."""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from receiver.ledger import outbox, record, refusals, returns, store
from receiver.ledger.admission import UnknownBudget
from receiver.ledger.engine.errors import DATABASE_ERRORS
from receiver.ledger.record import COMMIT_WITHIN_SECONDS
from receiver.ledger.refusals import NOT_KEPT, Refused
from receiver.ledger.registration import Registration
from receiver.ledger.submissions import Asked
from receiver.spool import spool
from receiver.spool.spool import REPLAY_EVERY_SECONDS, Spool
from tests.simulation import gateway
from tests.simulation.clock import Process, WorldClock
from tests.simulation.committing import CommitInOneThread
from tests.simulation.schedule import Door


class Web(Process):
    """One life of the web process. Callers see its answers only: what it returns, or that it dies."""

    def __init__(
        self,
        clock: WorldClock,
        on_death: Callable[[Process], None],
        spool_dir: Path,
        confirm: bool,
        keeps_strangers: bool,
    ) -> None:
        super().__init__("receiver", clock, on_death)
        CommitInOneThread.clock = clock
        record._commits = CommitInOneThread(record._write, COMMIT_WITHIN_SECONDS)
        spool._appends.cache_clear()
        self.spool = Spool(spool_dir)
        self._confirm = confirm
        self._unknown = UnknownBudget.a_minute(rows=10**6, size=2**40 if keeps_strangers else 0)
        self._replays = False
        self._door = Door()
        self.spawn(self._begin)

    def take(self, callback: store.Callback) -> bool:
        """Take a callback, as its route does; False when it could not be kept."""
        now = self.clock.now()
        try:
            self._record(callback, now, self._unknown)
        except Exception:  # noqa: BLE001 - as the route does
            try:
                self.spool.append(callback, now)
            except Exception as full:  # noqa: BLE001 - as the route does
                self.spawn(partial(self._note_refusal, str(full)))
                return False
            self._replay_soon()
        return True

    def register(self, registrations: Sequence[Registration]) -> bool:
        """Take registrations; False when the database is out of order."""
        try:
            self._door.register(registrations, self.clock.now())
        except DATABASE_ERRORS:
            return False
        return True

    def submit(self, asked: Asked, send: Callable[[], gateway.Sent]) -> str | None:
        """Submit through the gateway; return the task that the caller is told, None if it is told an error."""
        return gateway.submit(asked, send, self, *self._door.registers(self._confirm))

    def events_after(self, cursor: int) -> list[Any]:
        """Return some events; none when the database is out of order."""
        try:
            return outbox.events_after(cursor, limit=7)
        except DATABASE_ERRORS:
            return []

    def _begin(self) -> None:
        self._door.read()
        self.spool.retry_set_aside()
        self._replay_soon()
        with contextlib.suppress(*DATABASE_ERRORS):
            returns.note_return()

    def _record(self, callback: store.Callback, now: Any, unknown: UnknownBudget | None = None) -> None:
        self._door.record(callback, now, self._confirm, unknown)

    def _replay_soon(self) -> None:
        if not self._replays:
            self._replays = True
            self.spawn(self._replay)

    def _replay(self) -> None:
        while True:
            try:
                self.spool.replay(self._record)
            except (*DATABASE_ERRORS, OSError):
                pass
            if not self.spool.depth():
                break
            self.clock.wait(REPLAY_EVERY_SECONDS)
        self._replays = False

    def _note_refusal(self, why: str) -> None:
        now = self.clock.now()
        while True:
            self.clock.wait(5)
            try:
                refusals.try_a_write(now)
                refusals.add([Refused(NOT_KEPT, 1, now, now, None, why)])
                return
            except DATABASE_ERRORS:
                pass
