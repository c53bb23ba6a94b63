"""Discovers the tasks of each service in use, and of the default one."""

import logging
from collections.abc import Callable, Iterable, Iterator

from receiver.ledger import returns
from receiver.ledger.reading import tally
from receiver.upstream.services import DEFAULT, SERVICES, Lookups, Service
from reconcile.discover import Discoverer, Found

log = logging.getLogger(__name__)


class Discoverers:
    """A discoverer for each service that is in use when it is iterated over, the default one first.

    A service without batches has no list that could be read.
    """

    def __init__(self, make: Callable[[Service], Discoverer]) -> None:
        self._make = make
        self._made: dict[str, Discoverer] = {}

    def __iter__(self) -> Iterator[Discoverer]:
        for service in services_to_discover():
            if service.name not in self._made:
                self._made[service.name] = self._make(service)
            yield self._made[service.name]


def discover_all(discoverers: Iterable[Discoverer]) -> bool:
    """Adopt our tasks from upstream's lists. Return whether pages are left that may be read soon.

    A return of the receiver is followed although a service is paused: its list is read once it may be.
    """
    came: list[Found] = []
    returned = returns.count_returns()
    for discoverer in discoverers:
        came.append(found := discoverer.run())
        if found.adopted:
            log.info("Discovery: %s", found)
    if all(found.paused_itself or (found.is_whole and found.finished) for found in came):
        returns.note_followed(returned)
    return any(found.has_more for found in came)


def services_to_discover() -> list[Service]:
    """Return the services whose lists may hold tasks of ours, the default one first."""
    in_use = sorted(tally.services_in_use() - {DEFAULT.name})
    others = (SERVICES[name] for name in in_use if name in SERVICES)
    return [DEFAULT, *(service for service in others if service.lookups is Lookups.BATCH)]
