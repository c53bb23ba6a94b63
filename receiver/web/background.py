"""The background threads of a web worker: spool replay, refusal counts, checkpoints, the scheduler.

This is the composition root of what a worker runs beside its requests, so it imports much.

See "Processes" in docs/design.md.
"""

import contextlib
import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from flask import Flask
from gevent import monkey

from receiver.clock import utcnow
from receiver.config import Settings
from receiver.ledger.engine.checkpoints import checkpoint_while_running
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.engine.proxy import database
from receiver.ledger.engine.schema import SchemaBehind, require_schema
from receiver.ledger.paces import read_while_running
from receiver.ledger.refusals import try_a_write
from receiver.ledger.store import Callback, Recorded
from receiver.native import NativeThreads, SharedLock
from receiver.spool.spool import Spool, replay_while_running
from receiver.upstream.client import Upstream
from receiver.web.absence import end_while_running
from receiver.web.current import paces_of
from receiver.web.intake import intake_of, record
from receiver.web.refused import Board, record_while_running
from receiver.web.waiting import waiting_of

log = logging.getLogger("receiver")

_READY_WITHIN_SECONDS = 2.0

_boards: list[Board] = []  # one at most


class Scheduler(Protocol):
    """The reconciler's jobs when they run in this process."""

    def shutdown(self) -> None:
        """Wait for the run in progress and stop."""


StartScheduler = Callable[[Settings, Upstream, threading.Event], Scheduler]


class Background:
    """The threads of one worker. They start in the worker, as threads do not survive a fork.

    `start_scheduler` starts the reconciler's jobs. It is None when they run in a process of their own.
    """

    def __init__(self, app: Flask, settings: Settings, start_scheduler: StartScheduler | None) -> None:
        self._settings = settings
        self._refused = intake_of(app).refused
        self._waiting = waiting_of(app)
        self._absence = intake_of(app).absence
        self._paces = paces_of(app)
        self._start_scheduler = start_scheduler
        self._starts: list[Callable[[], None]] = app.extensions["backstop_starts"]
        self._scheduler: Scheduler | None = None
        self._stop = threading.Event()

    def start(self, board: Board) -> None:
        """Start all threads. If the database is not ready, log the reason, which /readyz tells too."""
        if self._settings.database_url.startswith("sqlite:"):
            database.obj._lock = SharedLock()  # slow reads run in native threads (offload.py)
            # A native thread with the native sleep: a greenlet would block all others during a checkpoint.
            start_new_thread = monkey.get_original("_thread", "start_new_thread")
            sleep = monkey.get_original("time", "sleep")
            start_new_thread(checkpoint_while_running, (database.obj.database, sleep))
        _log_readiness_meanwhile(Spool(self._settings.spool_dir))
        self._refused.join(board)
        record_while_running(self._refused)
        end_while_running(self._absence)

        # Never shorten spooled deliveries: replay brings them faster than they arrived, and each was
        # accepted whole.
        def take(callback: Callback, received_at: datetime) -> Recorded:
            return record(callback, received_at, self._settings, self._paces.timetable, unknown=None)

        replay_while_running(Spool(self._settings.spool_dir), take)
        read_while_running(self._paces)
        for start in self._starts:
            start()
        if self._start_scheduler:
            upstream = Upstream.from_settings(self._settings)
            self._scheduler = self._start_scheduler(self._settings, upstream, self._stop)

    def begin_to_stop(self) -> None:
        """Ask the run in progress and the requests that wait to end, while the worker still serves others."""
        self._waiting.end()
        self._stop.set()

    def stop(self) -> None:
        """Record the refusal counts and stop the scheduler. Its run releases its leases."""
        with contextlib.suppress(*DATABASE_ERRORS, OSError):  # the board keeps it for the next worker
            self._refused.record()
        self._stop.set()
        if self._scheduler:
            self._scheduler.shutdown()


def shared_board(workers: int) -> Board:
    """Return the board that all workers of this server share. The server creates it before it forks.

    A reload (SIGHUP) keeps the existing board, as old and new workers run at the same time.
    """
    if not _boards:
        _boards.append(Board(2 * workers + 8, shared=True))
    return _boards[0]


def _log_readiness_meanwhile(spool: Spool) -> threading.Thread:
    # A database that is locked, or a disk that hangs, must not keep the worker from serving for long.
    thread = threading.Thread(target=_log_readiness, args=(spool,), daemon=True)
    thread.start()
    thread.join(_READY_WITHIN_SECONDS)
    return thread


def _log_readiness(spool: Spool) -> None:
    """Log now what would otherwise show at the first callback, or at the first outage."""
    try:
        require_schema()
        try_a_write(utcnow())
    except (*DATABASE_ERRORS, SchemaBehind) as problem:
        log.error("Callbacks go to the spool until this is fixed: %s", describe(problem))
    try:
        NativeThreads(1).run(spool.try_a_write)
    except OSError as problem:
        lost = "While the database is down, callbacks are lost. Let this user write there."
        log.error("SPOOL_DIR (%s) takes no writes: %s. " + lost, spool.directory.absolute(), problem.strerror)
