"""A worker's return is counted in the ledger: after its start, and after its database was away."""

import logging

import pytest
from peewee import OperationalError

from receiver.ledger import returns, store
from receiver.ledger.returns import count_returns
from receiver.web.absence import Absence
from receiver.web.intake import intake_of
from tests import factories
from tests.conftest import CALLBACK_TOKEN


def fail(*_, **__):
    raise OperationalError("away")


def test_a_start_counts_once_and_is_told_in_the_log(ledger, caplog):
    caplog.set_level(logging.INFO)
    absence = Absence()
    absence.end()
    absence.end()
    assert count_returns() == 1
    assert [record.getMessage().partition(".")[0] for record in caplog.records] == ["This worker is back"]


def test_it_lasts_until_the_database_takes_a_write(ledger, monkeypatch):
    absence = Absence()
    with monkeypatch.context() as away:
        away.setattr(returns, "note_return", fail)
        with pytest.raises(OperationalError):
            absence.end()
    assert count_returns() == 0
    absence.end()
    assert count_returns() == 1


def register(client, auth):
    return client.post("/api/tasks", json={"id": "t1"}, headers=auth).status_code


def call_back(client, auth):
    return client.post(f"/callbacks/{CALLBACK_TOKEN}", data=factories.body("t1")).status_code


@pytest.mark.parametrize(
    ("request_that", "function", "status"), [(register, "register", 503), (call_back, "record", 202)]
)
def test_a_request_that_the_database_fails_is_an_absence(
    client, auth, monkeypatch, request_that, function, status
):
    absence = intake_of(client.application).absence
    absence.end()
    with monkeypatch.context() as away:
        away.setattr(store, function, fail)
        assert request_that(client, auth) == status
    absence.end()
    assert count_returns() == 2
    assert request_that(client, auth) in {200, 201}
    absence.end()
    assert count_returns() == 2
