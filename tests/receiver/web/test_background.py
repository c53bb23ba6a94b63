import logging

from receiver.ledger.engine.db import init_database
from receiver.ledger.models import database
from receiver.spool.spool import Spool
from receiver.web.background import _log_readiness


def test_a_worker_that_can_keep_callbacks_has_nothing_to_say_at_its_start(ledger, tmp_path, caplog):
    _log_readiness(Spool(tmp_path / "spool"))
    assert caplog.record_tuples == []


def test_what_takes_no_writes_is_logged_at_the_start(ledger, tmp_path, caplog):
    (tmp_path / "file").touch()
    database.execute_sql("DROP TABLE refusal")
    database.close()
    _log_readiness(Spool(tmp_path / "file" / "spool"))
    told = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in told] == [logging.ERROR] * 2
    assert told[0][1].startswith("Callbacks go to the spool until this is fixed: ")
    assert told[1][1].startswith(f"SPOOL_DIR ({tmp_path}/file/spool) takes no writes: Not a directory.")


def test_a_database_without_a_file_is_told_at_the_start_and_not_made(tmp_path, caplog):
    init_database(f"sqlite:///{tmp_path}/none.db")
    _log_readiness(Spool(tmp_path / "spool"))
    assert f"{tmp_path}/none.db is not there" in caplog.text
    assert not (tmp_path / "none.db").exists()
