"""Deleting settled tasks takes nothing off the totals; an index of submissions that may be deleted."""

from receiver.ledger.engine.schema import install


def up(migrator, db):
    install(db, "tally_deleted_v1")
    db.execute_sql("CREATE INDEX submission_ended ON submission (ended_at) WHERE ended_at IS NOT NULL")
