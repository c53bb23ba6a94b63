"""What runs of before the counts added up are counted as, and which runs count as failing."""

from datetime import timedelta

from playhouse.migrations import Runner

from receiver.clock import utcnow
from receiver.ledger import runs
from receiver.ledger.engine import schema
from receiver.ledger.engine.db import init_database
from receiver.ledger.engine.schema import migrate
from receiver.ledger.models import ReconcileRun, database
from receiver.ledger.reading import queries

MIGRATION = "run_progress"


def test_the_migration_counts_what_earlier_runs_confirmed(empty_url):
    init_database(empty_url)
    with database.connection_context():
        names = [migration.name for migration in schema._runner().status()]
        (ours,) = [name for name in names if name.endswith(MIGRATION)]
        Runner(database.obj, directory=str(schema._MIGRATIONS)).up(names[names.index(ours) - 1])
        now = utcnow().isoformat(sep=" ")
        for run_id, asked, settled in ((1, 10, 4), (2, 0, 0), (3, 7, 7)):
            database.execute_sql(
                "INSERT INTO reconcile_run (id, reconciler, started_at, due, asked, settled, running, absent, calls,"
                f" errors) VALUES ({run_id}, 'x', '{now}', {asked}, {asked}, {settled}, 0, 0, 1, 0)"
            )
        database.execute_sql(
            "INSERT INTO task (id, status, created_at, silent_since, claim_key, lookup_key, attempts, delivery_count,"
            f" lookup_count) VALUES ('t1', 'pending', '{now}', '{now}', '', '', 0, 0, 0)"
        )
        for verdict in ("error", "error", "succeeded"):
            database.execute_sql(
                "INSERT INTO lookup (task_id, run_id, asked_at, answered_at, verdict)"
                f" VALUES ('t1', 1, '{now}', '{now}', '{verdict}')"
            )
    migrate()
    counted = [(run.confirmed, run.unanswered) for run in ReconcileRun.select().order_by(ReconcileRun.id)]
    assert counted == [(4, 2), (0, 0), (0, 0)]
    database.obj.close_all()


def test_a_run_in_progress_does_not_count_as_failing(ledger):
    now = utcnow()
    run_id = runs.open_run("test:1", now)
    runs.note_progress(run_id, now, {"calls": 1, "errors": 1, "error": "HTTP 500"})
    assert queries.failing_runs(1) == []
    runs.close_run(run_id, now + timedelta(seconds=1), {"calls": 1, "errors": 1, "error": "HTTP 500"})
    assert [run.id for run in queries.failing_runs(1)] == [run_id]


def test_an_idle_run_takes_the_place_of_our_newest_one_and_of_no_other(ledger):
    began = utcnow()

    def left() -> list[tuple[str, float, int | None]]:
        known = ReconcileRun.select().order_by(ReconcileRun.id)
        assert all(run.started_at == run.finished_at for run in known if run.finished_at)
        return [(run.reconciler, (run.started_at - began).total_seconds(), run.clock_ahead) for run in known]

    def note(reconciler: str, seconds: int) -> None:
        runs.note_idle(reconciler, began + timedelta(seconds=seconds), seconds)

    note("a:1", 0)
    note("a:1", 15)
    assert left() == [("a:1", 15, 15)]
    note("b:1", 20)
    note("a:1", 30)
    assert left() == [("a:1", 15, 15), ("b:1", 20, 20), ("a:1", 30, 30)]
    for number, counts in enumerate(({"due": 1}, {"calls": 1}, {"error": "asking is paused"}), start=4):
        at = began + timedelta(seconds=number)
        runs.close_run(runs.open_run("a:1", at), at, counts)
        note("a:1", 100)
        note("a:1", 115)
        assert len(left()) == 2 * number - 3
    note("a:1", 90)
    assert left()[-2:] == [("a:1", 115, 115), ("a:1", 90, 90)]  # a clock was ahead, or is behind
    runs.open_run("a:1", began)  # its process ended before it did
    note("a:1", 130)
    assert left()[-2:] == [("a:1", 0, None), ("a:1", 130, 130)]
