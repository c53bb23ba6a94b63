"""Notes that this worker is back, so that reconcilers look for what it missed.

See "Absences" in docs/design.md.
"""

import logging
import threading
import time

from receiver.ledger import returns
from receiver.ledger.engine.errors import DATABASE_ERRORS

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 5.0


class Absence:
    """An absence of this worker: from its beginning until its start, and while the database is away.

    Safe to share between threads.
    """

    def __init__(self) -> None:
        self._is_away = threading.Event()
        self._is_away.set()

    def note(self) -> None:
        """Note that a request was not served, as the database is away."""
        self._is_away.set()

    def end(self) -> None:
        """Count a return in the ledger if the worker was away. Raises the database's errors: it still is."""
        if not self._is_away.is_set():
            return
        self._is_away.clear()  # before the write, so that what is noted meanwhile counts anew
        try:
            returns.note_return()
        except BaseException:
            self._is_away.set()
            raise
        log.info("This worker is back. A reconciler asks about what it may have missed.")


def end_while_running(absence: Absence) -> None:
    """Start a daemon thread that ends the absence as soon as the database takes a write."""

    def work() -> None:
        while True:
            try:
                absence.end()
            except DATABASE_ERRORS:
                pass  # /readyz, the pages and the log report the database's problem
            except Exception:
                log.exception("The return of this worker cannot be noted.")
            time.sleep(LOOK_EVERY_SECONDS)

    threading.Thread(target=work, name="absence", daemon=True).start()
