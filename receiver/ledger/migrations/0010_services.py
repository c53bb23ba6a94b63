"""Each task belongs to a service. What callbacks say stands in `callback_*`, beside `lookup_*`."""

from peewee import (
    AutoField,
    BigAutoField,
    BooleanField,
    IntegerField,
    Model,
    SmallIntegerField,
    SqliteDatabase,
    TextField,
)

from receiver.ledger.engine.schema import install

SAID = ("key", "status", "progress", "response", "error")
# All that was known before belongs to this one. A constant, so that no row is written anew.
SERVICE = "service TEXT NOT NULL DEFAULT 'midjourney'"


def up(migrator, db):
    class Tally(Model):
        id = BigAutoField()
        hour = TextField()
        service = TextField()
        status = TextField()
        settled_by = TextField()
        missed = BooleanField()
        disputed = BooleanField()
        took = SmallIntegerField()
        shard = IntegerField()

        class Meta:
            database = db
            table_name = "tally"

    class Discovery(Model):
        id = AutoField()
        service = TextField()

        class Meta:
            database = db
            table_name = "discovery"

    for statement in _without_triggers(isinstance(db, SqliteDatabase)):
        db.execute_sql(statement)
    for name in SAID:
        db.execute_sql(f"ALTER TABLE task RENAME COLUMN claim_{name} TO callback_{name}")
    for table in ("task", "tally", "discovery"):
        db.execute_sql(f"ALTER TABLE {table} ADD COLUMN {SERVICE}")
    migrator.migrate(migrator.drop_index("tally", "tally_key"))
    key = (
        Tally.hour,
        Tally.service,
        Tally.status,
        Tally.settled_by,
        Tally.missed,
        Tally.disputed,
        Tally.took,
    )
    db.execute(Tally.index(*key, Tally.shard, name="tally_key", unique=True))
    db.execute(Discovery.index(Discovery.service, name="discovery_service", unique=True))
    install(db, "tally_v3")


def _without_triggers(on_sqlite):
    if on_sqlite:
        return [f"DROP TRIGGER task_tally_{event}" for event in ("insert", "delete", "update")]
    return [
        "DROP TRIGGER task_tally ON task",
        "DROP TRIGGER task_tally_update ON task",
        "DROP FUNCTION tally_task",
    ]
