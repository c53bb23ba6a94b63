"""Backstop's WSGI application for the power cuts: it waits less, so that a round takes less time.

POWERCUT_SYNCHRONOUS plants a fault: that mode of SQLite's instead of ours.
"""

import os
from typing import Any

from receiver.ledger.engine import sqlite
from receiver.spool import spool
from wsgi import app

__all__ = ["app"]

# For a locked database. Then a callback goes to the spool.
sqlite._TURN_WITHIN_SECONDS = sqlite._BEGIN_WITHIN_SECONDS = 0.1
spool.REPLAY_EVERY_SECONDS = 0.1

_connect = sqlite.DurableSqlite._connect


def _connect_less_durably(database: sqlite.DurableSqlite) -> Any:
    connection = _connect(database)
    connection.execute(f"PRAGMA synchronous = {os.environ['POWERCUT_SYNCHRONOUS']}")
    return connection


if os.environ.get("POWERCUT_SYNCHRONOUS"):
    sqlite.DurableSqlite._connect = _connect_less_durably  # type: ignore[method-assign, assignment]
