"""The page on this deployment: its version, effective settings, schema, sizes, and how fast they grow."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from flask import render_template
from flask.typing import ResponseReturnValue

from receiver.clock import utcnow
from receiver.config import Settings
from receiver.ledger import growth
from receiver.ledger.engine.schema import applied_migrations, pending_migrations
from receiver.version import VERSION
from receiver.web.current import current_settings
from receiver.web.disk_room import Room
from receiver.web.intake import Intake, current_intake
from receiver.web.offload import offload
from receiver.web.pages.base import page_blueprint
from receiver.web.settings_shown import shown_settings
from receiver.web.watch.gathering import rooms

blueprint = page_blueprint("settings_page")

_FAR = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes in bytes. `a_day` is the database's growth; None where it is not known yet."""

    database: int
    spool: int
    a_day: float | None
    rooms: list[Room]
    full_at: datetime | None  # at this pace, of SQLite's disk; None where it is not known or far away


@blueprint.get("/settings")
def show() -> ResponseReturnValue:
    """Show the version, the settings, the schema and the sizes: 200."""
    now, settings, intake = utcnow(), current_settings(), current_intake()
    sizes = offload(_sizes, now, settings, intake)
    return render_template(
        "settings.html",
        now=now,
        version=VERSION,
        shown=list(shown_settings(settings.given)),
        applied=applied_migrations(),
        pending=pending_migrations(),
        sizes=sizes,
        on_sqlite=settings.database_url.startswith("sqlite:"),
    )


def when_full(room: Room, a_day: float | None, now: datetime) -> datetime | None:
    """Return when a disk is full at that pace; None where it is not, or not for years."""
    if a_day is None or a_day <= 0 or room.free / a_day > _FAR.days:
        return None
    return now + timedelta(days=room.free / a_day)


def _sizes(now: datetime, settings: Settings, intake: Intake) -> Sizes:
    found, a_day = rooms(settings), growth.bytes_a_day(now)
    of_database = found[-1] if found and settings.database_url.startswith("sqlite:") else None
    full_at = when_full(of_database, a_day, now) if of_database else None
    return Sizes(growth.database_bytes(), intake.spool.bytes(), a_day, found, full_at)
