"""Database errors in words."""

import sqlite3

import pytest

from receiver.ledger.engine.errors import describe


def test_a_file_that_is_read_only_is_told_with_what_to_do(tmp_path):
    sqlite3.connect(tmp_path / "ledger.db").close()
    connection = sqlite3.connect(f"file:{tmp_path}/ledger.db?mode=ro", uri=True)
    with pytest.raises(sqlite3.OperationalError) as refused:
        connection.execute("CREATE TABLE task (id)")
    connection.close()
    assert describe(refused.value) == (
        "attempt to write a readonly database: let this user write to the file and to its directory"
    )
