"""Runs count what they confirmed, and tell how far they are. Unreadable deliveries are listed by an index."""

from peewee import SQL, BigAutoField, DateTimeField, IntegerField, Model, TextField


def up(migrator, db):
    class Delivery(Model):
        id = BigAutoField()
        received_at = DateTimeField()
        verdict = TextField()

        class Meta:
            database = db
            table_name = "delivery"

    migrator.migrate(
        migrator.add_column("reconcile_run", "confirmed", IntegerField(default=0)),
        migrator.add_column("reconcile_run", "noted_at", DateTimeField(null=True)),
    )
    # Of earlier runs: what was asked about, and was neither anything else nor without an answer.
    db.execute_sql(
        "UPDATE reconcile_run SET confirmed = asked - settled - running - absent"
        " WHERE asked > settled + running + absent"
    )
    db.execute_sql(
        "UPDATE reconcile_run SET confirmed = CASE WHEN confirmed > failed.tasks"
        " THEN confirmed - failed.tasks ELSE 0 END"
        " FROM (SELECT run_id, COUNT(*) AS tasks FROM lookup WHERE verdict = 'error' GROUP BY run_id)"
        " AS failed"
        " WHERE failed.run_id = reconcile_run.id AND confirmed > 0"
    )
    unreadable = SQL("verdict = 'unreadable'")
    db.execute(
        Delivery.index(Delivery.received_at, Delivery.id, name="delivery_unreadable", where=unreadable)
    )
