"""Watches the service from a web worker: tells ALERT_URL of incidents, and counts for /metrics.

It works while the reconciler is away, and while the database is. Its failures disturb nothing else.

See "What is wrong, told once" in docs/design.md.
"""

import fcntl
import logging
import os
import threading
import time
from datetime import datetime, timedelta

from receiver.clock import utcnow
from receiver.config import Settings
from receiver.forward.attempt import Sends
from receiver.ledger import counters, growth, incidents
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.engine.schema import pending_migrations
from receiver.ledger.refusals import NOT_KEPT, UNKNOWN_REFUSED
from receiver.web.intake import Intake
from receiver.web.offload import offload
from receiver.web.watch.gathering import facts_without_ledger, gather_facts
from receiver.web.watch.memory import Memory
from receiver.web.watch.messages import Message, request_for
from receiver.web.watch.summary import summarise, summarise_without_ledger
from receiver.web.watch.troubles import KINDS, SCHEMA_BEHIND, Trouble, troubles
from receiver.web.writes import Writes

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 10.0
_WAITS = {kind.code: kind.alert_after for kind in KINDS.values() if kind.alert_after is not None}
_LOST_LATELY = timedelta(minutes=15)
_TELL_FOR_SECONDS = 20.0  # with the last post this stays below the lease of what is claimed
_FIRST_LOOK_AFTER_SECONDS = 20.0  # at a start the reconciler and the spool's replay need a moment


class Watcher:
    """Looks every LOOK_EVERY_SECONDS, in one worker of each machine."""

    def __init__(self, settings: Settings, intake: Intake, sender: Sends) -> None:
        self._settings = settings
        self._intake = intake
        self._sender = sender
        self._memory = Memory()
        self._told_in_ledger: set[str] = set()  # what the ledger's rows said when it was last read
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
                self._remember([SCHEMA_BEHIND], now)
            else:
                counters.count()
                self._note_size(now)
                self._note_in_ledger(now, writes)
        except DATABASE_ERRORS as problem:
            writes = writes.without_database(describe(problem), now)
            facts = facts_without_ledger(now, self._settings, self._intake, writes)
            self._remember(troubles(summarise_without_ledger(facts)), now)
        self._tell_of_remembered(now)

    def _note_size(self, now: datetime) -> None:
        if self._size_noted_in != now.hour:
            growth.note_size(now)
            self._size_noted_in = now.hour

    def _note_in_ledger(self, now: datetime, writes: Writes) -> None:
        if self._settings.alert_url is None:
            return
        facts = offload(gather_facts, now, self._settings, self._intake, writes)
        present = _alerted(troubles(summarise(facts)))
        for kind, code in ((NOT_KEPT, "callbacks_lost"), (UNKNOWN_REFUSED, "unknown_refused")):
            lost = facts.refused.get(kind)
            if lost is not None and now - lost.last_at > _LOST_LATELY:
                # Its notice stays for a day. A loss after this one is to be told again.
                present.pop(code, None)
        incidents.note_seen(present, now)
        self._memory.note_seen(
            {code: told for code, told in present.items() if self._memory.knows(code)}, now
        )
        self._tell_of_rows(now)
        self._told_in_ledger = incidents.told_codes()

    def _remember(self, found: list[Trouble], now: datetime) -> None:
        present = _alerted(found)
        self._memory.note_seen({code: present[code] for code in present.keys() - self._told_in_ledger}, now)

    def _tell_of_remembered(self, now: datetime) -> None:
        if self._settings.alert_url is None:
            return
        for one in self._memory.claim(_WAITS, now):
            if self._post(one.as_message()):
                self._memory.note_told(one)

    def _tell_of_rows(self, now: datetime) -> None:
        ends_at = time.monotonic() + _TELL_FOR_SECONDS
        for row in incidents.claim(_WAITS, now):
            if self._post(Message(row.code, row.message, row.began_at, row.over_at)):
                incidents.note_told(row, now)
            else:
                incidents.note_untold(row, now)
            if time.monotonic() > ends_at:  # the next look tells of the others
                return

    def _post(self, message: Message) -> bool:
        outcome = self._sender.send(
            request_for(str(self._settings.alert_url), message, self._settings.public_url)
        )
        if outcome.kind == "delivered":
            log.info("ALERT_URL was told: %s", message.title)
            return True
        why = outcome.error or f"it answered {outcome.status}"
        log.warning("ALERT_URL could not be told, trying again later: %s (%s)", message.title, why)
        return False

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


def _alerted(found: list[Trouble]) -> dict[str, str]:
    """Return the messages of what is to be told, by code; of several with one code the first."""
    told: dict[str, str] = {}
    for one in found:
        if one.code in _WAITS:
            told.setdefault(one.code, one.message)
    return told
