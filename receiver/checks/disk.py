"""Checks where the spool and SQLite's file lie: whether the disk lasts, takes writes, and has room."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from receiver.checks.finding import Finding, bad, good, warning
from receiver.config import Settings
from receiver.database_url import sqlite_path
from receiver.platforms import OF_MEMORY, Platform, mount_of, platform_of, read_mounts
from receiver.spool.spool import Spool
from receiver.web.disk_room import Room
from receiver.web.formatting import size

_MAKE_ROOM = "Make room or enlarge the disk."
SPOOL, FILE, ROOM = "spool", "database file", "disk"
_OF_CONTAINERS = {"overlay", "overlayfs", "aufs"}
_OVER_A_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "afs", "ceph", "glusterfs"}


def check_disks(settings: Settings) -> Iterator[Finding]:
    """Yield what is found about the spool, SQLite's file, and the room on their disks."""
    mounts, platform = read_mounts(), platform_of(os.environ)
    yield _spool(settings.spool_dir, mounts, platform)
    yield from _waiting(Spool(settings.spool_dir))
    places = [(SPOOL, settings.spool_dir)]
    if settings.database_url.startswith("sqlite:"):
        file = Path(sqlite_path(settings.database_url))
        yield _sqlite(file, mounts, platform)
        places.append((FILE, file.parent))
    yield from _room(places)


def why_lost(path: Path, mounts: str, platform: Platform | None) -> str | None:
    """Return why a file does not outlive a restart of the machine or container; None if it does."""
    point, kind = mount_of(str(path.absolute()), mounts)
    if kind in OF_MEMORY:
        return "it lies in memory"
    if platform and (point == "/" or not platform.has_volumes):
        return f"it lies on a disk that {platform.name} discards at each restart"
    if kind in _OF_CONTAINERS:
        return "it lies inside a container, whose disk is lost with it"
    return None


def _spool(directory: Path, mounts: str, platform: Platform | None) -> Finding:
    where, is_new = f"SPOOL_DIR ({directory.absolute()})", not os.path.exists(directory)
    try:
        Spool(directory).try_a_write()
    except OSError as problem:
        return _unusable(where, problem)
    why = why_lost(directory, mounts, platform)
    if why is None and is_new:
        return warning(
            SPOOL,
            f"{where} was not there, and is made now",
            "If this deployment has run before, correct SPOOL_DIR, or mount the disk that it lies on.",
        )
    if why is None:
        return good(SPOOL, f"{where} takes writes and is on a lasting disk")
    return warning(
        SPOOL,
        f"{where} does not last: {why}. What waits there during an outage of the database may be lost",
        "Set SPOOL_DIR to a directory on a mounted volume or a disk. Where the platform has none, keep the"
        " database close: the spool is empty while it answers.",
    )


def _unusable(where: str, problem: OSError) -> Finding:
    is_full = problem.errno in (errno.ENOSPC, errno.EDQUOT)
    let_write = "Let this user write there, or set SPOOL_DIR to another directory."
    return bad(
        SPOOL,
        f"{where} takes no writes: {problem.strerror}. Callbacks are lost while the database is down",
        _MAKE_ROOM if is_full else let_write,
    )


def _waiting(spool: Spool) -> Iterator[Finding]:
    if depth := spool.depth():
        yield warning(
            SPOOL,
            f"{depth} deliveries wait in it for the database",
            "See that the database answers and the web process runs: they go in within seconds.",
        )
    if aside := spool.set_aside():
        yield warning(
            SPOOL,
            f"{aside} deliveries were set aside, as the database refuses them",
            f"Read the log for the reason. They are kept in {spool.directory / 'set-aside'}, and each start"
            " of the web process tries them again.",
        )


def _sqlite(file: Path, mounts: str, platform: Platform | None) -> Finding:
    _, kind = mount_of(str(file.absolute()), mounts)
    if kind in _OVER_A_NETWORK:
        return bad(
            FILE,
            f"{file.absolute()} lies on a network disk ({kind}): SQLite's file breaks there",
            "Move it to a local disk, or set DATABASE_URL to a PostgreSQL database.",
        )
    if why := why_lost(file, mounts, platform):
        return bad(
            FILE,
            f"{file.absolute()} does not last: {why}",
            "Set DATABASE_URL to a file on a mounted volume or a disk, or to a PostgreSQL database.",
        )
    lies = "is" if os.path.exists(file) else "is not there, but would be"
    return good(FILE, f"{file.absolute()} {lies} on a lasting disk")


def _room(places: list[tuple[str, Path]]) -> Iterator[Finding]:
    seen: set[int] = set()
    for name, directory in places:
        try:
            device, usage = os.stat(directory).st_dev, shutil.disk_usage(directory)
        except OSError:
            continue  # told above
        if device in seen:
            continue
        seen.add(device)
        said = f"{size(usage.free)} are free where the {name} is, of {size(usage.total)}"
        remedy = f"{_MAKE_ROOM} A full disk refuses callbacks. RETENTION_DAYS limits growth."
        is_full = Room(str(directory), usage.free, usage.total).is_nearly_full
        yield bad(ROOM, said, remedy) if is_full else good(ROOM, said)
