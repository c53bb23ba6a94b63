"""Asks upstream about open tasks for callers who wait: one question for all that wait in this process.

The answers go through the ledger, as the reconciler's do: a lease, one look-up, `store.apply`. Whatever goes
wrong with a question is left to the reconciler. Its callers get what the ledger knows.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from flask import Flask, current_app

from receiver.clock import utcnow
from receiver.config import Settings
from receiver.ledger import pauses, store
from receiver.ledger.answers import match_answers
from receiver.ledger.engine.errors import describe
from receiver.ledger.evidence import Answer
from receiver.ledger.paces import Paces
from receiver.ledger.patience import Backoff, Patience, doubt_after
from receiver.upstream.client import CALL_WITHIN_SECONDS, ErrorScope, Upstream, UpstreamError
from receiver.upstream.services import Lookups, Service
from receiver.web.current import paces_of
from receiver.web.waiting import waiting_of

log = logging.getLogger(__name__)

# A caller waits so long for upstream's answer, and then gets what the ledger knows.
ANSWER_WITHIN_SECONDS = 10.0
# Longer than the call: nobody else asks meanwhile. Afterwards the reconciler does.
_LEASE = timedelta(seconds=CALL_WITHIN_SECONDS + 15)
# The gateway's share of RECONCILE_MAX_RATE, for all web processes together. What they ask about, the
# reconciler need not ask about again soon: the answer sets the task's next look-up.
_SHARE_OF_RATE = 0.5


@dataclass(eq=False, slots=True)
class _Wish:
    """One caller's wish to know more about tasks of a service."""

    service: Service
    ids: frozenset[str]
    done: threading.Event = field(default_factory=threading.Event)


class Asker:
    """Asks upstream for this process. Safe to share between threads. It starts no thread before it is asked.

    `told` is called with the ids of each answer.
    """

    def __init__(
        self, upstream: Upstream, settings: Settings, paces: Paces, told: Callable[[Collection[str]], None]
    ) -> None:
        self._upstream = upstream
        self._settings = settings
        self._paces = paces
        self._told = told
        self._wishes: list[_Wish] = []
        self._lock = threading.Lock()
        self._is_asking = False
        self._next_at = 0.0  # monotonic
        rate = settings.reconcile_max_rate * _SHARE_OF_RATE / settings.web_concurrency
        self._apart = 1 / rate if rate else 0.0

    def ask(self, service: Service, ids: Collection[str]) -> None:
        """Wait until the ledger has upstream's answer about tasks, for ANSWER_WITHIN_SECONDS at most."""
        wish = _Wish(service, frozenset(ids))
        with self._lock:
            self._wishes.append(wish)
            if not self._is_asking:
                self._is_asking = True
                threading.Thread(target=self._ask_while_wished, name="gateway-asker", daemon=True).start()
        wish.done.wait(ANSWER_WITHIN_SECONDS)
        with self._lock:
            if wish in self._wishes:
                self._wishes.remove(wish)

    def _ask_while_wished(self) -> None:
        while self._goes_on():
            time.sleep(max(self._next_at - time.monotonic(), 0))
            wishes = self._take()
            try:
                if wishes:
                    self._fulfil(wishes)
            except Exception as problem:  # noqa: BLE001 - the callers get what the ledger knows
                log.error("Upstream could not be asked for callers who wait: %s", describe(problem))
            finally:
                for wish in wishes:
                    wish.done.set()

    def _goes_on(self) -> bool:
        with self._lock:
            self._is_asking = bool(self._wishes)
            return self._is_asking

    def _take(self) -> list[_Wish]:
        """Return the wishes that one question can fulfil: those of the service that has waited longest."""
        with self._lock:
            taken: list[_Wish] = []
            ids: set[str] = set()
            for wish in self._wishes:
                fits = not taken or len(ids | wish.ids) <= self._most(wish.service)
                if fits and wish.service == self._wishes[0].service:
                    taken.append(wish)
                    ids |= wish.ids
            self._wishes = [wish for wish in self._wishes if wish not in taken]
            return taken

    def _fulfil(self, wishes: list[_Wish]) -> None:
        service, ids = wishes[0].service, set().union(*(wish.ids for wish in wishes))
        now = utcnow()
        if pauses.current_pause(now, service.name) is not None:
            return
        some = sorted(ids)[: self._most(service)]
        claimed = store.claim_these(service.name, some, now, _LEASE)
        if not claimed.tasks:
            return
        self._next_at = time.monotonic() + self._apart
        try:
            items = self._items(service, claimed.ids)
        except UpstreamError as error:
            self._note(claimed, error)
        except BaseException:
            store.release(claimed, utcnow())
            raise
        else:
            self._apply(claimed, match_answers(claimed.ids, items))

    def _most(self, service: Service) -> int:
        """Return how many ids one call may name."""
        return 1 if service.lookups is Lookups.SINGLE else self._settings.reconcile_batch_size

    def _items(self, service: Service, ids: list[str]) -> list[Any]:
        if service.lookups is Lookups.SINGLE:
            return self._upstream.retrieve(service, *ids)
        return self._upstream.retrieve_batch(service, ids)

    def _note(self, claimed: store.Claim, error: UpstreamError) -> None:
        now = utcnow()
        pauses.stop_after(error, claimed.service, now)
        if error.stops_all or error.scope is not ErrorScope.CALL:
            store.release(claimed, now)  # the reconciler finds out which id spoils the call
        else:
            self._apply(claimed, {task_id: Answer(error=str(error)) for task_id in claimed.ids})

    def _apply(self, claimed: store.Claim, answers: dict[str, Answer]) -> None:
        now = utcnow()
        store.apply(claimed, answers, None, now, now, self._patience())
        self._told(claimed.ids)

    def _patience(self) -> Patience:
        # Only a reconciler gives a task up: it watches the clock.
        return Patience(
            Backoff(self._paces.timetable, random.Random()),
            give_up_after=self._settings.reconcile_give_up_after,
            doubt_after=doubt_after(self._settings.reconcile_grace),
            clock_is_steady=False,
        )


def add_asker(app: Flask, settings: Settings) -> None:
    """Let callers wait for upstream's answers. Without a token there is nobody to ask."""
    if settings.api_token is not None:
        waiting = waiting_of(app)

        def hurry(ids: Collection[str]) -> None:
            for task_id in ids:
                waiting.hurry(task_id)

        app.extensions["backstop_asker"] = Asker(
            Upstream(settings.api_base_url, settings.api_token, connections=1),
            settings,
            paces_of(app),
            told=hurry,
        )


def current_asker() -> Asker:
    """Return who asks upstream for the application that serves the current request."""
    asker: Asker = current_app.extensions["backstop_asker"]
    return asker
