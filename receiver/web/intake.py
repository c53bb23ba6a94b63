"""What becomes of the callbacks that come while the database is away."""

from dataclasses import dataclass

from receiver.spool import Spool
from receiver.web.settings import current_settings


@dataclass(frozen=True, slots=True)
class Kept:
    """How many deliveries wait in the spool, None when it cannot be used, and how many were refused.

    `refused` is None while nobody counts them.
    """

    spooled: int | None
    refused: int | None


def kept_meanwhile() -> Kept:
    """Return what became of the callbacks that the database did not take. It asks no database."""
    return Kept(spooled=Spool(current_settings().spool_dir).depth(), refused=None)
