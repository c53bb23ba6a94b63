"""Others who know the callback URL, and people before the pages."""

import contextlib
import json
from collections.abc import Callable
from functools import partial

from receiver.ledger import store
from receiver.ledger.engine.errors import DATABASE_ERRORS
from receiver.upstream.results import FAILED, SUCCEEDED
from tests.simulation.application import Application, plan_of_nobody
from tests.simulation.clock import WorldClock
from tests.simulation.faults import Faults
from tests.simulation.receiver import Web
from tests.simulation.upstream import Account
from tests.simulation.works import BASE

_JUNK = (b"", b"{", b"[]", b'{"task_id": 5}', b"\xff\xfe", b'{"task_id": "\\ud800"}')


class Strangers:
    """They post what they like: of tasks that nobody has, of ours, and what is no result at all."""

    def __init__(self, seed: int, faults: Faults, account: Account, application: Application) -> None:
        self._seed = seed
        self._rng = faults.rng("strangers")
        self._account = account
        self._application = application
        self._number = 0

    def post(self) -> None:
        """Post one callback."""
        self._number += 1
        if self._rng.random() < 0.2:
            self.post_junk()
            return
        works = list(self._account.works.values())
        if works and self._rng.random() < 0.6:
            work = self._rng.choice(works)
            task_id, told = work.id, work.told
        else:
            task_id, told = plan_of_nobody(self._seed, self._number).task_id, []
        status = self._rng.choice((FAILED, SUCCEEDED))
        told.append(status)
        self._application.post(self._forged(task_id, status), task_id, f"forged: {status}")

    def post_junk(self) -> None:
        """Post what names no task."""
        self._application.post(self._rng.choice(_JUNK), "", "junk")

    def _forged(self, task_id: str, status: str) -> bytes:
        body: dict[str, object] = {"task_id": task_id, "success": status == SUCCEEDED}
        if status == SUCCEEDED:
            body["image_url"] = f"{BASE}/forged-{self._number}.png"
            if self._rng.random() < 0.2:
                body["note"] = "x" * 5000  # large: nobody may store many of these
        else:
            body["error"] = {"code": "bad_request", "message": "forged"}
        return json.dumps(body).encode()


class People:
    """They ask for tasks at once and acknowledge disputes."""

    def __init__(
        self, faults: Faults, clock: WorldClock, account: Account, web: Callable[[], Web | None]
    ) -> None:
        self._rng = faults.rng("people:acts")
        self._clock, self._account, self._web = clock, account, web

    def act(self) -> None:
        """Do one thing on the pages."""
        if (web := self._web()) and self._account.works:
            ids = sorted(self._account.works)
            some = self._rng.sample(ids, min(3, len(ids)))
            work = self._ask if self._rng.random() < 0.6 else self._acknowledge
            web.spawn(partial(work, some))

    def _ask(self, ids: list[str]) -> None:
        with contextlib.suppress(*DATABASE_ERRORS):
            store.ask_now(ids[0], self._clock.now())

    def _acknowledge(self, ids: list[str]) -> None:
        with contextlib.suppress(*DATABASE_ERRORS):
            store.acknowledge(ids, self._clock.now())
