"""Upgrades of a ledger with data in it, on both databases."""

from datetime import timedelta

from playhouse.migrations import Runner

from receiver.clock import utcnow
from receiver.ledger.engine import schema
from receiver.ledger.engine.db import init_database
from receiver.ledger.engine.schema import migrate
from receiver.ledger.models import LearnedPace, Task, database
from receiver.ledger.paces import learn
from receiver.ledger.reading import tally
from tests.factories import body, record

NOW = utcnow()
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def test_a_ledger_from_before_is_learned_from_by_its_events(empty_url):
    init_database(empty_url)
    times = {"created_at": NOW - HOUR, "silent_since": NOW - HOUR, "submitted_at": NOW - HOUR}
    with database.connection_context():
        Runner(database.obj, directory=str(schema._MIGRATIONS)).up("0011_events")
        for n in range(3):
            Task.insert(id=f"t{n}", service="midjourney", type="imagine", **times).execute()
        done = {"status": "succeeded", "settled_by": "callback", "settled_at": NOW - HOUR + MINUTE}
        Task.update(**done).where(Task.id != "t2").execute()
    assert migrate()[0] == "0012_triggers_by_statement"
    record(body("t2"), NOW - MINUTE)
    assert learn(NOW) == 3
    kinds = {(row.service, row.type, row.mode) for row in LearnedPace.select()}
    assert kinds == {("midjourney", "imagine", ""), ("midjourney", "", "")}
    outcomes = tally.count_outcomes()
    assert (outcomes.tasks, outcomes.succeeded, outcomes.by_callback) == (3, 3, 3)
    database.obj.close_all()
