"""Which services are discovered: those in use, and the default one."""

from collections.abc import Callable, Iterator

from receiver.ledger.reading import tally
from receiver.upstream.services import DEFAULT, SERVICES, Lookups, Service
from reconcile.discover import Discoverer


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


def services_to_discover() -> list[Service]:
    """Return the services whose lists may hold tasks of ours, the default one first."""
    in_use = sorted(tally.services_in_use() - {DEFAULT.name})
    others = (SERVICES[name] for name in in_use if name in SERVICES)
    return [DEFAULT, *(service for service in others if service.lookups is Lookups.BATCH)]
