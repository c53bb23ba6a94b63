"""What runs of before the counts added up are counted as, which runs count as failing, and what is pruned."""

from datetime import timedelta

import pytest
from playhouse.migrations import Runner

from receiver.clock import utcnow
from receiver.ledger import runs
from receiver.ledger.engine import schema
from receiver.ledger.engine.db import init_database
from receiver.ledger.engine.schema import migrate
from receiver.ledger.models import Attempt, Forward, ReconcileRun, Resending, database
from receiver.ledger.reading import queries
from receiver.ledger.reading.forwards import ForwardFilter
from receiver.ledger.resending import dismiss, order, resend
from tests.factories import create_forward

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


class TestPruneForwards:
    def test_only_what_was_delivered_or_dismissed_long_ago_is_deleted(self, ledger, monkeypatch):
        monkeypatch.setattr(runs, "_PRUNE_AT_ONCE", 2)
        now = utcnow()
        old, new = now - timedelta(days=40), now - timedelta(days=20)
        kept = []
        for status in ("pending", "delivered", "failed", "dismissed"):
            for _ in range(5):
                gone = create_forward(status=status, created_at=old)
                Attempt.create(
                    forward=gone, began_at=old, took=1, url="", headers="{}", kind="refused", answer=b""
                )
                if status in ("pending", "failed"):
                    kept.append(gone.id)
                # Made long ago and delivered lately, after a long outage.
                kept.append(create_forward(status=status, created_at=old, ended_at=new).id)
                kept.append(create_forward(status=status, created_at=new).id)
        assert runs.prune(now - timedelta(days=30)) == 10
        assert {row.id for row in Forward.select()} == set(kept)
        assert Attempt.select().count() == 10

    def test_a_failed_one_goes_with_what_made_up_for_it(self, ledger):
        now = utcnow()
        days = [now - timedelta(days=ago) for ago in (50, 45, 40)]
        first = create_forward(status="failed", created_at=days[0]).id
        second = resend(first, days[1])
        Forward.update(status="failed", ended_at=days[1]).where(Forward.id == second).execute()
        third = resend(first, days[2])
        assert runs.prune(now - timedelta(days=30)) == 0
        Forward.update(status="delivered", ended_at=days[2]).where(Forward.id == third).execute()
        runs.prune(now - timedelta(days=30))
        assert Forward.select().count() == 0

    @pytest.mark.parametrize("is_dismissed", [True, False])
    def test_one_that_was_sent_again_in_vain_stays(self, ledger, is_dismissed):
        now = utcnow()
        old = now - timedelta(days=50)
        first = create_forward(status="failed", created_at=old).id
        second = resend(first, old)
        Forward.update(status="failed", ended_at=old).where(Forward.id == second).execute()
        if is_dismissed:
            dismiss(second, old)
        runs.prune(now - timedelta(days=30))
        assert Forward.select().count() == (0 if is_dismissed else 2)

    def test_resendings_that_ended_long_ago_are_deleted(self, ledger):
        now = utcnow()
        create_forward(status="failed")
        order(ForwardFilter(status="failed"), 1, now - timedelta(days=50))
        order(ForwardFilter(status="dismissed"), 1, now - timedelta(days=50))
        order(ForwardFilter(status="dismissed"), 1, now)
        assert runs.prune(now - timedelta(days=30)) == 1
        assert [one.id for one in Resending.select().order_by(Resending.id)] == [1, 3]
