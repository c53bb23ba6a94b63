"""Copies of the SQLite file while others write to it."""

import sqlite3
import stat
import threading
from contextlib import closing

import pytest

from receiver.clock import utcnow
from receiver.database_url import sqlite_path
from receiver.ledger.engine.backup import back_up
from receiver.ledger.engine.db import init_database
from receiver.ledger.models import database
from tests.factories import body, record


@pytest.fixture
def path(tmp_path, sqlite_template):
    """The file of a ledger with 5 MB of deliveries."""
    file = tmp_path / "backstop.db"
    file.write_bytes(sqlite_template.read_bytes())
    init_database(f"sqlite:///{file}")
    for number in range(10):
        record(body(f"t{number}", text="x" * 500_000), utcnow())
    yield sqlite_path(f"sqlite:///{file}")
    database.obj.close_all()


def test_it_goes_on_while_others_write_and_holds_what_was_there_before(path, tmp_path):
    seen = []

    def tell(done: int, total: int) -> None:
        seen.append(done)
        assert len(seen) < 100, "it begins again and again"
        thread = threading.Thread(target=lambda: record(body(f"late{len(seen)}"), utcnow()))
        thread.start()
        thread.join()

    copy = tmp_path / "copy.db"
    assert back_up(path, str(copy), tell) == copy.stat().st_size
    assert len(seen) > 3
    assert seen == sorted(set(seen))  # it never began again
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ids = {row[0] for row in connection.execute("SELECT id FROM task")}
    assert ids == {f"t{number}" for number in range(10)}
    assert sorted(file.name for file in tmp_path.glob("*.part*")) == []


def test_it_replaces_no_file_and_leaves_none_behind_when_it_fails(path, tmp_path):
    (tmp_path / "there").write_text("mine")
    with pytest.raises(FileExistsError):
        back_up(path, str(tmp_path / "there"), lambda *_: None)
    assert (tmp_path / "there").read_text() == "mine"

    def fail(done: int, total: int) -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        back_up(path, str(tmp_path / "new"), fail)
    with pytest.raises(sqlite3.Error):
        back_up(str(tmp_path / "missing.db"), str(tmp_path / "new"), lambda *_: None)
    assert list(tmp_path.glob("new*")) == []
