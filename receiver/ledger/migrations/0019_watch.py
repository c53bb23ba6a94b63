"""What a watcher is told: incidents that are told once, and counters that pruning does not lower."""

from peewee import (
    SQL,
    AutoField,
    BigAutoField,
    DateTimeField,
    DoubleField,
    IntegerField,
    Model,
    TextField,
)

from receiver.ledger.engine.schema import install


def up(migrator, db):
    class Incident(Model):
        id = AutoField()
        code = TextField()
        message = TextField()
        began_at = DateTimeField()
        seen_at = DateTimeField()
        told_at = DateTimeField(null=True)
        over_at = DateTimeField(null=True)
        closed_at = DateTimeField(null=True)
        next_try_at = DateTimeField(null=True)
        tries = IntegerField()

        class Meta:
            database = db
            table_name = "incident"

    class Counter(Model):
        id = BigAutoField()
        name = TextField()
        labels = TextField()
        shard = IntegerField()
        value = DoubleField()

        class Meta:
            database = db
            table_name = "counter"

    is_open, is_unclosed = SQL("over_at IS NULL"), SQL("closed_at IS NULL")
    Incident.add_index(Incident.index(Incident.code, name="incident_open", unique=True, where=is_open))
    Incident.add_index(Incident.index(Incident.id, name="incident_unclosed", where=is_unclosed))
    Incident.add_index(Incident.index(Incident.closed_at, name="incident_closed"))
    Counter.add_index(
        Counter.index(Counter.name, Counter.labels, Counter.shard, name="counter_key", unique=True)
    )
    db.create_tables([Incident, Counter], safe=False)
    # How many forwards there are is kept up to date from now on. The others count from 0.
    db.execute_sql(
        "INSERT INTO counter (name, labels, shard, value)"
        " SELECT 'forwards', status, 0, COUNT(*) FROM forward GROUP BY status"
    )
    db.execute_sql("INSERT INTO reader (name, event) SELECT 'counters', COALESCE(MAX(id), 0) FROM event")
    install(db, "counters_v1")
