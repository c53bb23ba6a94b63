"""The ledger's file as a world sees it: each statement may be a process's last, and each change is noted."""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from peewee import OperationalError

from receiver.ledger.engine.db import init_database
from receiver.ledger.engine.schema import migrate
from receiver.ledger.engine.sqlite import DurableSqlite, sqlite_turn
from receiver.ledger.models import database
from tests.simulation.clock import Died
from tests.simulation.deaths import COMMIT, COMMITTED, TURN, Deaths, shape
from tests.simulation.writers import writer_now

_COLUMNS = ("status", "callback_status", "lookup_status", "doubted_at", "gave_up_at", "silent_since")
_RANK = "CASE {} WHEN 'succeeded' THEN 2 WHEN 'failed' THEN 1 WHEN 'pending' THEN 0 ELSE -1 END"
_SINKS = " OR ".join(
    f"NEW.{witness}_key < OLD.{witness}_key OR"
    f" {_RANK.format(f'NEW.{witness}_status')} < {_RANK.format(f'OLD.{witness}_status')}"
    for witness in ("callback", "lookup")
)
# Of a task that is deleted.
_KEPT = (
    *("id", "service", "status", "settled_by", "callback_status", "lookup_status", "doubted_at"),
    *("acknowledged_at", "next_lookup_at", "settled_at", "gave_up_at"),
)
# How often the task has been deleted before: another life of it has begun.
_LIFE = "(SELECT COUNT(*) FROM gone WHERE id = {})"
_UNDEALT = "(SELECT COALESCE(MAX(event), 0) FROM reader WHERE name = 'forwards')"
# Written by the database itself, in the transaction of the change.
_WATCH = f"""
CREATE TABLE change (number INTEGER PRIMARY KEY, at REAL, id TEXT, life INTEGER,
  {", ".join(f"old_{name}, new_{name}" for name in _COLUMNS)});
CREATE TABLE broken (at REAL, id TEXT, what TEXT);
CREATE TABLE paused (at REAL, id INTEGER, started_at TEXT, ended_at TEXT);
CREATE TABLE gone (at REAL, {", ".join(_KEPT)}, forwards INTEGER, undealt INTEGER);
CREATE TABLE gone_delivery (at REAL, uid TEXT, task_id TEXT, received_at TEXT);
CREATE TABLE written AS SELECT *, 0 AS life FROM event;
CREATE TRIGGER watch_pause AFTER INSERT ON pause BEGIN
  INSERT INTO paused VALUES (world_now(), NEW.id, NEW.started_at, NEW.ended_at);
END;
CREATE TRIGGER watch_pause_end AFTER UPDATE OF ended_at ON pause BEGIN
  UPDATE paused SET ended_at = NEW.ended_at WHERE id = NEW.id;
END;
CREATE TRIGGER watch_pause_delete AFTER DELETE ON pause BEGIN
  UPDATE paused SET id = NULL WHERE id = OLD.id;
END;
CREATE TRIGGER watch_insert AFTER INSERT ON task BEGIN
  INSERT INTO change (at, id, life, old_status, {", ".join(f"new_{name}" for name in _COLUMNS)})
  VALUES (world_now(), NEW.id, {_LIFE.format("NEW.id")}, 'pending', {", ".join(f"NEW.{name}" for name in _COLUMNS)});
END;
CREATE TRIGGER watch_update AFTER UPDATE ON task
WHEN ({", ".join(f"OLD.{name}" for name in _COLUMNS[:5])}) IS NOT ({", ".join(f"NEW.{name}" for name in _COLUMNS[:5])})
BEGIN
  INSERT INTO change (at, id, life, {", ".join(f"old_{name}, new_{name}" for name in _COLUMNS)})
  VALUES (world_now(), NEW.id, {_LIFE.format("NEW.id")}, {", ".join(f"OLD.{name}, NEW.{name}" for name in _COLUMNS)});
END;
CREATE TRIGGER watch_sink AFTER UPDATE ON task WHEN {_SINKS} BEGIN
  INSERT INTO broken VALUES (world_now(), NEW.id, 'a witness moves down');
END;
CREATE TRIGGER watch_unsettled AFTER UPDATE ON task
WHEN OLD.status IN ('succeeded', 'failed') AND NEW.status NOT IN ('succeeded', 'failed') BEGIN
  INSERT INTO broken VALUES (world_now(), NEW.id, 'a settled task is open again');
END;
CREATE TRIGGER watch_delete AFTER DELETE ON task BEGIN
  INSERT INTO gone VALUES (world_now(), {", ".join(f"OLD.{name}" for name in _KEPT)},
    (SELECT COUNT(*) FROM forward WHERE task_id = OLD.id),
    (SELECT COUNT(*) FROM event WHERE task_id = OLD.id AND id > {_UNDEALT}));
END;
CREATE TRIGGER watch_delivery_delete AFTER DELETE ON delivery BEGIN
  INSERT INTO gone_delivery VALUES (world_now(), OLD.uid, OLD.task_id, OLD.received_at);
END;
CREATE TRIGGER watch_event AFTER INSERT ON event BEGIN
  INSERT INTO written SELECT *, {_LIFE.format("NEW.task_id")} FROM event WHERE id = NEW.id;
END;
CREATE TRIGGER watch_event_update AFTER UPDATE ON event BEGIN
  INSERT INTO broken VALUES (world_now(), OLD.task_id, 'an event is changed');
END;
CREATE TRIGGER watch_event_delete AFTER DELETE ON event
WHEN EXISTS (SELECT 1 FROM task WHERE id = OLD.task_id)
  AND (SELECT life FROM written WHERE id = OLD.id) = {_LIFE.format("OLD.task_id")}
BEGIN
  INSERT INTO broken VALUES (world_now(), OLD.task_id, 'an event of a kept task is deleted');
END;
"""


class WatchedSqlite(DurableSqlite):
    """The product's database, whose statements are points of death and which may be out of order."""

    def __init__(self, path: Path, deaths: Deaths, now: Callable[[], float]) -> None:
        super().__init__(str(path))
        self.deaths = deaths
        self.outage: Callable[[str], str | None] = lambda what: None
        self.in_turn = False
        self.commits = 0
        self._now = now
        self._last = ""

    def _add_conn_hooks(self, conn: Any) -> None:
        super()._add_conn_hooks(conn)
        conn.create_function("world_now", 0, self._now)

    def connect(self, reuse_if_open: bool = False) -> bool:
        if not self.in_turn:
            self.deaths.step()
        self._fail("connect")
        return bool(super().connect(reuse_if_open))

    def execute_sql(self, sql: str, params: Any = None) -> Any:
        self._last = shape(sql)
        self.deaths.before(self._last)
        self._fail(sql)
        return super().execute_sql(sql, params)

    def begin(self, lock_type: str | None = None) -> None:
        self._fail("BEGIN")
        self._last = "nothing"
        super().begin(lock_type)

    def commit(self) -> None:
        try:
            self.deaths.before(f"{COMMIT}{self._last}")
            self._fail("COMMIT")
        except Died:
            self.rollback()
            raise
        super().commit()
        self.commits += 1
        self.deaths.before(f"{COMMITTED}{self._last}")

    def _fail(self, what: str) -> None:
        if problem := self.outage(what):
            raise OperationalError(problem)


@cache
def template() -> bytes:
    """Return an empty ledger's file, with the watch on it."""
    with tempfile.TemporaryDirectory(dir=memory()) as directory:
        path = Path(directory) / "template.db"
        init_database(f"sqlite:///{path}")
        migrate()
        with database.connection_context():
            database.connection().executescript(_WATCH)
            database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        database.obj.close_all()
        return path.read_bytes()


def alter(ledger: sqlite3.Connection) -> None:
    """Change an empty ledger before its world begins: planted bugs do."""


def memory() -> str | None:
    """Return a directory in memory, if this machine has one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


@contextmanager
def ledger_of_a_world() -> Iterator[Path]:
    """Make a directory with an empty ledger; afterwards the process is bound to no ledger."""
    content = template()
    directory = Path(tempfile.mkdtemp(dir=memory(), prefix="backstop-world-"))
    try:
        (directory / "backstop.db").write_bytes(content)
        with closing(sqlite3.connect(directory / "backstop.db", isolation_level=None)) as ledger:
            alter(ledger)
        yield directory
    finally:
        database.obj.close_all()
        shutil.rmtree(directory)


@contextmanager
def turn_of_the_world(deaths: Deaths) -> Iterator[None]:
    """Take the turn to write as the product does; before that, other strands may run."""
    writer = writer_now()
    deaths.step(f"{TURN}{writer}")
    watched = database.obj
    with sqlite_turn():
        watched.in_turn, deaths.writer = True, writer
        try:
            yield
        finally:
            watched.in_turn, deaths.writer = False, None


def bind(path: Path, deaths: Deaths, now: Callable[[], float]) -> WatchedSqlite:
    """Bind the models of this process to a world's ledger."""
    watched = WatchedSqlite(path / "backstop.db", deaths, now)
    database.initialize(watched)
    return watched
