"""Compares what a server acknowledged with what is in its ledger."""

from collections import Counter

from bench.bulk import deliveries_since, last_delivery
from bench.load import Measured
from bench.serving import Server

_MOST_NAMED = 5


class Lost(Exception):
    """Callbacks were acknowledged and are not in the ledger."""


class Check:
    """Knows which deliveries a ledger has before a load, and so which of them the load has added."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._keeps_any = server.contender.ledger is not None
        self._last = last_delivery(server.database_url) if self._keeps_any else 0

    def require_all(self, measured: Measured, spooled: bool = False) -> None:
        """Raise Lost unless each task has as many new deliveries as were acknowledged, or more.

        More: what was under way when the load ended is stored, and nobody waited for the answer. With
        `spooled` those count too that were answered 202, once they have come from the spool.
        """
        if not self._keeps_any:
            return
        expected = measured.acknowledged + (measured.spooled if spooled else Counter())
        lost = expected - deliveries_since(self._server.database_url, self._last)
        if lost:
            some = ", ".join(f"{task_id} ({count})" for task_id, count in lost.most_common(_MOST_NAMED))
            raise Lost(
                f"{self._server.contender.title} acknowledged {expected.total()} callbacks,"
                f" of which {lost.total()} are not in its ledger, such as those of {some}."
            )
