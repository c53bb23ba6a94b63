import logging

import pytest

from receiver.clock import utcnow
from receiver.ledger.engine.db import init_database, writing
from receiver.ledger.models import Refusal, database
from receiver.spool.spool import Spool
from receiver.web.background import _log_readiness, _log_readiness_meanwhile


def test_a_worker_that_can_keep_callbacks_has_nothing_to_say_at_its_start(ledger, tmp_path, caplog):
    _log_readiness(Spool(tmp_path / "spool"))
    assert caplog.record_tuples == []


@pytest.mark.usefixtures("ledger")
def test_a_database_that_is_locked_keeps_no_worker_from_starting(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("receiver.web.background._READY_WITHIN_SECONDS", 0.01)
    with writing(at_once=True):
        Refusal.insert(kind="tried", hour="", requests=0, first_at=utcnow(), last_at=utcnow()).execute()
        looking = _log_readiness_meanwhile(Spool(tmp_path / "spool"))
        assert looking.is_alive()
    looking.join()
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
