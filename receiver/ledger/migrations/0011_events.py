"""What the customer's app is to be told. Of what happened before nothing is told."""

from peewee import (
    SQL,
    BigAutoField,
    BooleanField,
    DateTimeField,
    IntegerField,
    Model,
    SqliteDatabase,
    TextField,
)

from receiver.ledger.engine.schema import install


def up(migrator, db):
    # Or SQLite would give the number of the newest event again when that has been deleted.
    never_again = [SQL("AUTOINCREMENT")] if isinstance(db, SqliteDatabase) else []

    class Event(Model):
        id = BigAutoField(constraints=never_again)
        happened_at = DateTimeField()
        sequence = IntegerField()
        confirmed = BooleanField(null=True)
        task_id = TextField()
        type = TextField()
        status = TextField()
        settled_by = TextField(null=True)

        class Meta:
            database = db
            table_name = "event"

    repeated = SQL("(sequence > 1 OR type IN ('task.disputed', 'task.expired'))")
    Event.add_index(Event.index(Event.task_id, Event.sequence, name="event_repeated", where=repeated))
    db.create_tables([Event], safe=False)
    install(db, "outbox_v1")
