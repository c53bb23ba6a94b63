"""Reads the room on the disks that this process writes to."""

import shutil
from contextlib import suppress
from pathlib import Path

from receiver.config import Settings
from receiver.database_url import sqlite_path
from receiver.web.disk_room import Room, tightest


def rooms(settings: Settings) -> list[Room]:
    """Return the room on each disk that this process writes to, the spool's first."""
    places = [settings.spool_dir.absolute()]
    if settings.database_url.startswith("sqlite:"):
        places.append(Path(sqlite_path(settings.database_url)).absolute().parent)
    found: list[Room] = []
    for place in places:
        with suppress(OSError):  # the spool's directory is made when it is needed
            usage = shutil.disk_usage(place if place.exists() else place.parent)
            found.append(Room(str(place), usage.free, usage.total))
    return found


def tightest_room(settings: Settings) -> Room | None:
    """Return the disk to warn of first; None where none can be read."""
    return tightest(rooms(settings))
