import threading

import pytest

from receiver.ledger.models import database
from receiver.web.watch import readiness, reading
from tests.processes import wait_until

STRANGERS = 20


class Held:
    """Holds each reading until it is let go, and counts them."""

    def __init__(self, monkeypatch):
        self.count, self.go = 0, threading.Event()
        self._gather = reading.gather_facts
        monkeypatch.setattr(reading, "gather_facts", self._hold)

    def _hold(self, *arguments):
        self.count += 1
        assert self.go.wait(60)
        return self._gather(*arguments)


@pytest.fixture
def held(client, monkeypatch):
    held = Held(monkeypatch)
    yield held
    held.go.set()
    reader = client.application.extensions["backstop_ledger_reader"]
    wait_until(lambda: reader._reading is None)  # it has given its connection back


def ask(client, answers):
    answers.append(client.application.test_client().get("/readyz"))
    database.close()


def test_however_many_ask_at_once_the_ledger_is_read_once(client, held, monkeypatch):
    monkeypatch.setattr(readiness, "_READ_WITHIN_SECONDS", 60)
    waiting, answers = [], []
    for _ in range(STRANGERS):
        thread = threading.Thread(target=ask, args=(client, answers))
        thread.start()
        waiting.append(thread)
    reader = client.application.extensions["backstop_ledger_reader"]
    wait_until(lambda: held.count == 1 and len(reader._reading.ended._cond._waiters) == STRANGERS)
    held.go.set()
    for thread in waiting:
        thread.join(60)
    assert [answer.status_code for answer in answers] == [200] * STRANGERS
    assert held.count == 1
    assert client.get("/readyz").status_code == 200
    assert held.count == 2  # the next one looks anew


def test_while_a_reading_hangs_nobody_begins_another(client, held, monkeypatch):
    monkeypatch.setattr(readiness, "_READ_WITHIN_SECONDS", 0.05)
    for _ in range(3):
        report = client.get("/readyz")
        assert (report.status_code, report.json["database"]) == (503, "unreachable")
    assert held.count == 1


def test_an_error_ends_a_reading(client, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(reading, "pending_migrations", lambda: database.execute_sql("SELECT nothing"))
        assert client.get("/readyz").status_code == 503
    assert client.get("/readyz").status_code == 200
