"""Watches the service from a web worker: tells ALERT_URL of incidents, and counts for /metrics.

It works while the reconciler is away, and while the database is. Its failures disturb nothing else.

See "What is wrong, told once" in docs/design.md.
"""

import fcntl
import logging
import os
import threading
import time
from datetime import datetime

from receiver.clock import utcnow
from receiver.config import Settings
from receiver.forward.attempt import Sends
from receiver.ledger import counters, growth
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.engine.schema import pending_migrations
from receiver.web.intake import Intake
from receiver.web.offload import offload
from receiver.web.watch.alerts import Alerts
from receiver.web.watch.gathering import facts_without_ledger, gather_facts

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 10.0
_FIRST_LOOK_AFTER_SECONDS = 20.0  # at a start the reconciler and the spool's replay need a moment


class Watcher:
    """Looks every LOOK_EVERY_SECONDS, in one worker of each machine."""

    def __init__(self, settings: Settings, intake: Intake, sender: Sends) -> None:
        self._settings = settings
        self._intake = intake
        self._alerts = Alerts(settings.alert_url, settings.public_url, sender)
        self._size_noted_in: int | None = None  # the hour
        self._lock: int | None = None  # the open directory of the spool: its lock says who looks

    def start(self) -> None:
        """Start the daemon thread."""
        threading.Thread(target=self._work, name="watch", daemon=True).start()

    def _work(self) -> None:
        time.sleep(_FIRST_LOOK_AFTER_SECONDS)
        while True:
            try:
                if self._is_mine():
                    self.look(utcnow())
            except Exception:
                log.exception("Watching failed; it goes on.")
            time.sleep(LOOK_EVERY_SECONDS)

    def look(self, now: datetime) -> None:
        """Look once: count what the outbox tells, note the present troubles, and tell what is to be told.

        While the ledger cannot be used, this process alone remembers what it has told.
        """
        writes = self._intake.writes()
        try:
            if pending_migrations():
                self._alerts.remember_schema_behind(now)
            else:
                counters.count()
                self._note_size(now)
                if self._settings.alert_url is not None:
                    facts = offload(gather_facts, now, self._settings, self._intake, writes)
                    self._alerts.note_in_ledger(facts)
        except DATABASE_ERRORS as problem:
            writes = writes.without_database(describe(problem), now)
            facts = facts_without_ledger(now, self._settings, self._intake, writes)
            self._alerts.remember(facts)
        self._alerts.tell_of_remembered(now)

    def _note_size(self, now: datetime) -> None:
        if self._size_noted_in != now.hour:
            growth.note_size(now)
            self._size_noted_in = now.hour

    def _is_mine(self) -> bool:
        """Tell whether this process is the one that looks. If the lock cannot be tried, each does."""
        if self._lock is None:
            try:
                self._settings.spool_dir.mkdir(parents=True, exist_ok=True)
                self._lock = os.open(self._settings.spool_dir, os.O_RDONLY)
            except OSError:
                return True
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a network disk may have no locks
            return True
        return True
