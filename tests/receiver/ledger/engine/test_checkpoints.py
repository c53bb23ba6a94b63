import sqlite3
from contextlib import closing

import pytest

from receiver.ledger.engine.checkpoints import Checkpoints
from receiver.ledger.models import database
from tests.factories import register

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def checkpoints():
    with closing(Checkpoints(database.obj.database)) as checkpoints:
        yield checkpoints


def tasks_in_the_file(path=None):
    """How many there are without the log, which an immutable database is read without."""
    with closing(sqlite3.connect(f"file:{path or database.obj.database}?immutable=1", uri=True)) as file:
        return file.execute("SELECT COUNT(*) FROM task").fetchone()[0]


@pytest.mark.usefixtures("ledger")
def test_what_is_in_the_log_moves_into_the_file(checkpoints):
    checkpoints.make()
    register("t1", "t2")
    assert tasks_in_the_file() == 0
    checkpoints.make()
    assert tasks_in_the_file() == 2


@pytest.mark.usefixtures("ledger")
def test_nobody_waits_for_it_and_it_waits_for_nobody(checkpoints):
    with closing(sqlite3.connect(database.obj.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        checkpoints.make()
        other.execute("COMMIT")
    register("t1")


def test_a_database_that_is_not_there_does_not_come_to_be(tmp_path, caplog, database_url):
    Checkpoints(str(tmp_path / "none.db")).make()
    assert list(tmp_path.glob("none*")) == []
    assert caplog.text == ""  # others say so


def test_a_problem_is_logged_once(tmp_path, caplog, database_url):
    (tmp_path / "broken.db").write_bytes(b"broken" * 1000)
    checkpoints = Checkpoints(str(tmp_path / "broken.db"))
    checkpoints.make()
    checkpoints.make()
    assert caplog.text.count("write-ahead log failed: file is not a database") == 1
