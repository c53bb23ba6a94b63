"""The customer's app is told: endpoints, forwards, attempts. An event says that a result was confirmed."""

from peewee import (
    SQL,
    AutoField,
    BigAutoField,
    BigIntegerField,
    BlobField,
    BooleanField,
    DateTimeField,
    DoubleField,
    ForeignKeyField,
    IntegerField,
    Model,
    PostgresqlDatabase,
    SmallIntegerField,
    TextField,
)

from receiver.ledger.engine.schema import install


def up(migrator, db):
    class Endpoint(Model):
        id = AutoField()
        url = TextField()
        is_app = BooleanField()
        host = TextField()
        created_at = DateTimeField()
        retired_at = DateTimeField(null=True)
        failing_since = DateTimeField(null=True)
        succeeded_at = DateTimeField(null=True)
        failed_at = DateTimeField(null=True)
        failure = TextField(null=True)
        held_at = DateTimeField(null=True)
        held_because = TextField(null=True)
        probe_at = DateTimeField(null=True)
        held_seconds = DoubleField()

        class Meta:
            database = db
            table_name = "endpoint"
            indexes = ((("is_app", "url"), True),)

    class Forward(Model):
        id = BigAutoField()
        endpoint = ForeignKeyField(Endpoint, backref="+", index=False)
        event = BigIntegerField(null=True)
        task_id = TextField()
        sequence = IntegerField()
        type = TextField()
        happened_at = DateTimeField()
        url = TextField(null=True)
        body = BlobField()
        status = TextField()
        created_at = DateTimeField()
        resends = BigIntegerField(null=True)
        resent_at = DateTimeField(null=True)
        pushed = BooleanField()
        next_attempt_at = DateTimeField(null=True)
        leased_until = DateTimeField(null=True)
        attempts = IntegerField()
        counted = SmallIntegerField()
        began_at = DateTimeField(null=True)
        held_before = DoubleField()
        ended_at = DateTimeField(null=True)
        cause = TextField(null=True)

        class Meta:
            database = db
            table_name = "forward"

    class Attempt(Model):
        id = BigAutoField()
        forward = ForeignKeyField(Forward, backref="+", on_delete="CASCADE")
        began_at = DateTimeField()
        took = DoubleField()
        url = TextField()
        headers = TextField()
        kind = TextField()
        status = SmallIntegerField(null=True)
        answer = BlobField()
        error = TextField(null=True)

        class Meta:
            database = db
            table_name = "attempt"

    class Resending(Model):
        id = AutoField()
        created_at = DateTimeField()
        wanted = TextField()
        rate = DoubleField()
        total = IntegerField()
        up_to = BigIntegerField()
        done = IntegerField()
        reached_at = DateTimeField(null=True)
        reached = BigIntegerField()
        next_at = DateTimeField()
        ended_at = DateTimeField(null=True)
        stopped_at = DateTimeField(null=True)

        class Meta:
            database = db
            table_name = "resending"

    pending, once = SQL("status = 'pending'"), SQL("resends IS NULL")
    fresh = SQL("status = 'pending' AND attempts = 0 AND resends IS NULL")
    leased = SQL("leased_until IS NOT NULL")
    for name, columns, where in (
        ("forward_due", (Forward.endpoint, Forward.next_attempt_at, Forward.id), pending),
        ("forward_fresh", (Forward.endpoint, Forward.created_at, Forward.id), fresh),
        ("forward_leased", (Forward.leased_until,), leased),
        ("forward_task", (Forward.task_id, Forward.endpoint, Forward.id), None),
        ("forward_once", (Forward.endpoint, Forward.task_id, Forward.sequence), once),
        ("forward_status_newest", (Forward.status, Forward.created_at, Forward.id, Forward.endpoint), None),
        ("forward_waiting", (Forward.endpoint, Forward.id), pending),
        ("forward_pushed", (Forward.endpoint, Forward.next_attempt_at, Forward.id), SQL("pushed")),
        ("forward_resends", (Forward.resends, Forward.id), SQL("resends IS NOT NULL")),
    ):
        index = Forward.index(*columns, name=name, where=where, unique=name == "forward_once")
        Forward.add_index(index)
    Resending.add_index(
        Resending.index(Resending.next_at, name="resending_open", where=SQL("ended_at IS NULL"))
    )
    migrator.migrate(migrator.add_column("task", "callback_url", TextField(null=True)))
    db.create_tables([Endpoint, Forward, Attempt, Resending], safe=False)
    # What happened before was not meant to be told.
    db.execute_sql("INSERT INTO reader (name, event) SELECT 'forwards', COALESCE(MAX(id), 0) FROM event")
    _tell_of_confirmations(db)


def _tell_of_confirmations(db):
    if isinstance(db, PostgresqlDatabase):
        for name in ("task_event_insert", "task_event_update"):
            db.execute_sql(f"DROP TRIGGER {name} ON task")
            db.execute_sql(f"DROP FUNCTION {name}")
    else:
        for name in ("task_event_insert_status", "task_event_insert_dispute", "task_event_update"):
            db.execute_sql(f"DROP TRIGGER {name}")
    install(db, "outbox_v3")
