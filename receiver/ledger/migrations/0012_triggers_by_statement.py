"""On PostgreSQL the triggers run once a statement, for all of its rows. SQLite has triggers by row only."""

from peewee import PostgresqlDatabase

from receiver.ledger.engine.schema import install


def up(migrator, db):
    if not isinstance(db, PostgresqlDatabase):
        return
    for trigger in ("task_tally", "task_tally_update", "task_event_insert", "task_event_update"):
        db.execute_sql(f"DROP TRIGGER {trigger} ON task")
    for function in ("tally_task", "event_of_task"):
        db.execute_sql(f"DROP FUNCTION {function}")
    install(db, "tally_v4")
    install(db, "outbox_v2")
