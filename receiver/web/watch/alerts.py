"""Tells ALERT_URL of each incident once: of those in the ledger, and of those that this process remembers.

See "What is wrong, told once" in docs/design.md.
"""

import logging
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

from receiver.forward.attempt import Sends
from receiver.ledger import incidents
from receiver.ledger.refusals import NOT_KEPT, UNKNOWN_REFUSED
from receiver.web.watch.facts import Facts
from receiver.web.watch.memory import Memory
from receiver.web.watch.messages import Message, request_for
from receiver.web.watch.summary import summarise, summarise_without_ledger
from receiver.web.watch.troubles import KINDS, SCHEMA_BEHIND, Trouble, troubles

log = logging.getLogger(__name__)

_WAITS = {kind.code: kind.alert_after for kind in KINDS.values() if kind.alert_after is not None}
_LOST_LATELY = timedelta(minutes=15)
_TELL_FOR_SECONDS = 20.0  # with the last post this stays below the lease of what is claimed


class Alerts:
    """What ALERT_URL is told; nothing where it is None. One thread may use it."""

    def __init__(self, url: str | None, public_url: str | None, sender: Sends) -> None:
        self._url = url
        self._public_url = public_url
        self._sender = sender
        self._memory = Memory()
        self._told_in_ledger: set[str] = set()  # what the ledger's rows said when it was last read

    def note_in_ledger(self, facts: Facts) -> None:
        """Note the present troubles in the ledger, and tell of its incidents. Raises database errors."""
        present, now = _alerted(troubles(summarise(facts))), facts.now
        for kind, code in ((NOT_KEPT, "callbacks_lost"), (UNKNOWN_REFUSED, "unknown_refused")):
            lost = facts.refused.get(kind)
            if lost is not None and now - lost.last_at > _LOST_LATELY:
                # Its notice stays for a day. A loss after this one is to be told again.
                present.pop(code, None)
        incidents.note_seen(present, now)
        for one in self._memory.among(present):
            incidents.take_over(one.code, one.began_at, now if one.told else None)
            self._memory.forget(one)
        self._memory.note_seen({}, now)
        self._tell_of_rows(now)
        self._told_in_ledger = incidents.told_codes()

    def remember(self, facts: Facts) -> None:
        """Note the present troubles in this process, while the ledger cannot be used."""
        self._remember(troubles(summarise_without_ledger(facts)), facts.now)

    def remember_schema_behind(self, now: datetime) -> None:
        """Note in this process that the ledger's schema is behind: nothing else is known then."""
        self._remember([SCHEMA_BEHIND], now)

    def tell_of_remembered(self, now: datetime) -> None:
        """Tell of the incidents that this process remembers."""
        if self._url is None:
            return
        for one in self._memory.claim(_WAITS, now):
            if self._post(one.as_message()):
                self._memory.note_told(one)

    def _remember(self, found: Sequence[Trouble], now: datetime) -> None:
        present = _alerted(found)
        self._memory.note_seen({code: present[code] for code in present.keys() - self._told_in_ledger}, now)

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
        outcome = self._sender.send(request_for(str(self._url), message, self._public_url))
        if outcome.kind == "delivered":
            log.info("ALERT_URL was told: %s", message.title)
            return True
        why = outcome.error or f"it answered {outcome.status}"
        log.warning("ALERT_URL could not be told, trying again later: %s (%s)", message.title, why)
        return False


def _alerted(found: Sequence[Trouble]) -> dict[str, str]:
    """Return the messages of what is to be told, by code; of several with one code the first."""
    told: dict[str, str] = {}
    for one in found:
        if one.code in _WAITS:
            told.setdefault(one.code, one.message)
    return told
