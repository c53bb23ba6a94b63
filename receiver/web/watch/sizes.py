"""How large the database and the spool are, how fast they grow, and when the disk is full."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from receiver.config import Settings
from receiver.ledger import growth
from receiver.web.disk_room import Room
from receiver.web.intake import Intake
from receiver.web.watch.rooms import rooms

_FAR = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes in bytes. `a_day` is the database's growth; None where it is not known yet."""

    database: int
    spool: int
    a_day: float | None
    rooms: list[Room]
    full_at: datetime | None  # at this pace, of SQLite's disk; None where it is not known or far away


def when_full(room: Room, a_day: float | None, now: datetime) -> datetime | None:
    """Return when a disk is full at that pace; None where it is not, or not for years."""
    if a_day is None or a_day <= 0 or room.free / a_day > _FAR.days:
        return None
    return now + timedelta(days=room.free / a_day)


def sizes_of(now: datetime, settings: Settings, intake: Intake) -> Sizes:
    """Return the sizes of this moment. It reads the ledger."""
    found, a_day = rooms(settings), growth.bytes_a_day(now)
    of_database = found[-1] if found and settings.database_url.startswith("sqlite:") else None
    full_at = when_full(of_database, a_day, now) if of_database else None
    return Sizes(growth.database_bytes(), intake.spool.bytes(), a_day, found, full_at)
