"""A SQLite file whose bytes were changed: what is said of it, and the way back in docs/operating.md."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest

from receiver.app import create_app
from receiver.checks.database import check_database
from receiver.clock import utcnow
from receiver.database_url import sqlite_path
from receiver.ledger.engine import db
from receiver.ledger.models import Delivery, Event, Task, database
from tests.factories import body, record

PAGE = 4096
GUIDE = Path("docs/operating.md").read_text()
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def damaged(ledger: str) -> Iterator[Path]:
    """The file of a ledger with 100 tasks, of which the page with the newest is zeros."""
    for number in range(100):
        record(body(f"t{number}", prompt="x" * 500), utcnow())
    database.obj.close_all()
    file = Path(sqlite_path(ledger))
    with closing(connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'task'")
    content = bytearray(file.read_bytes())
    leaf = _last_leaf(content, root)
    content[leaf : leaf + PAGE] = bytes(PAGE)
    file.write_bytes(content)
    yield file
    database.obj.close_all()


def _last_leaf(content: bytes, page: int) -> int:
    """Return where the last leaf of a table's tree begins."""
    at = (page - 1) * PAGE
    is_leaf = content[at] == 13
    return at if is_leaf else _last_leaf(content, int.from_bytes(content[at + 8 : at + 12]))


def test_rows_that_cannot_be_read_are_an_error_of_the_database(damaged, client, auth, caplog):
    answer = client.get("/api/events?after=0&limit=100", headers=auth)
    assert (answer.status_code, answer.json["error"]["code"]) == (503, "service_unavailable")
    assert "the file is damaged, follow" in caplog.text


def test_check_tells_of_it(damaged, make_settings):
    (told,) = [one for one in check_database(make_settings()) if one.level == "bad"]
    assert told.said.startswith("its file is damaged: ")
    assert "A damaged SQLite file" in told.remedy


def test_no_backup_is_kept_of_it(damaged, make_settings, tmp_path, monkeypatch):
    monkeypatch.setattr(db, "_bound_to", None)
    runner = create_app(make_settings()).test_cli_runner()
    told = runner.invoke(args=["backup", str(tmp_path / "copy.db")])
    assert told.exit_code == 1
    assert "The database is damaged, so no copy is kept. Keep the older ones, and follow" in told.output
    assert list(tmp_path.glob("copy*")) == []


@pytest.mark.skipif(
    not shutil.which("sqlite3") and not os.environ.get("CI"), reason="sqlite3 is not installed"
)
def test_the_way_back_saves_all_that_can_be_read(damaged, ledger, make_settings):
    assert "### A damaged SQLite file" in GUIDE
    (command,) = re.findall(r"^ +(sqlite3 damaged\.db \.dump .*)$", GUIDE, re.MULTILINE)
    database.obj.close_all()
    damaged.rename(damaged.with_name("damaged.db"))
    here = command.replace("backstop.db", damaged.name)
    subprocess.run(here, shell=True, cwd=damaged.parent, check=True, timeout=60)
    db._bound_to = None
    create_app(make_settings())
    assert [one for one in check_database(make_settings()) if one.level != "good"] == []
    assert 50 < Task.select().count() < 100
    assert Event.select().count() == Delivery.select().count() == 100
    record(body("another"), utcnow())
    assert Event.select(Event.id).order_by(Event.id.desc()).get().id == 101
