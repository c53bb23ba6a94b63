"""The first schema: tasks, deliveries, runs and look-ups."""

from peewee import (
    SQL,
    BigAutoField,
    BlobField,
    DateTimeField,
    DoubleField,
    ForeignKeyField,
    IntegerField,
    Model,
    SmallIntegerField,
    TextField,
)

DISPUTED = (
    "((claim_status = 'failed' AND lookup_status = 'succeeded')"
    " OR (claim_status = 'succeeded' AND lookup_status = 'failed'))"
)


# Frozen copies of the models, on purpose apart from them: a migration must not change when they do.
def up(migrator, db):
    class Task(Model):
        id = TextField(primary_key=True)
        status = TextField()
        created_at = DateTimeField()
        registered_at = DateTimeField(null=True)
        type = TextField(null=True)
        type_source = SmallIntegerField(null=True)
        ref = TextField(null=True)
        ref_source = SmallIntegerField(null=True)
        trace_id = TextField(null=True)
        trace_id_source = SmallIntegerField(null=True)
        request = TextField(null=True)
        request_source = SmallIntegerField(null=True)
        prompt = TextField(null=True)
        submitted_at = DateTimeField(null=True)
        submitted_at_source = SmallIntegerField(null=True)
        finished_at = DateTimeField(null=True)
        claim_key = BlobField()
        claim_status = TextField(null=True)
        claim_progress = DoubleField(null=True)
        claim_response = TextField(null=True)
        claim_error = TextField(null=True)
        lookup_key = BlobField()
        lookup_status = TextField(null=True)
        lookup_progress = DoubleField(null=True)
        lookup_response = TextField(null=True)
        lookup_error = TextField(null=True)
        settled_by = TextField(null=True)
        settled_at = DateTimeField(null=True)
        gave_up_at = DateTimeField(null=True)
        silent_since = DateTimeField()
        next_lookup_at = DateTimeField(null=True)
        attempts = IntegerField()
        last_lookup_error = TextField(null=True)
        delivery_count = IntegerField()
        lookup_count = IntegerField()

        class Meta:
            database = db
            table_name = "task"

    class Delivery(Model):
        id = BigAutoField()
        task = ForeignKeyField(Task, null=True)
        received_at = DateTimeField(index=True)
        verdict = TextField()
        problem = TextField(null=True)
        ref = TextField(null=True)
        remote_addr = TextField(null=True)
        headers = TextField()
        body = BlobField()
        size = IntegerField()
        digest = BlobField()

        class Meta:
            database = db
            table_name = "delivery"

    class ReconcileRun(Model):
        id = BigAutoField()
        reconciler = TextField()
        started_at = DateTimeField(index=True)
        finished_at = DateTimeField(null=True)
        due = IntegerField()
        asked = IntegerField()
        settled = IntegerField()
        running = IntegerField()
        absent = IntegerField()
        calls = IntegerField()
        errors = IntegerField()
        error = TextField(null=True)

        class Meta:
            database = db
            table_name = "reconcile_run"

    class Lookup(Model):
        id = BigAutoField()
        task = ForeignKeyField(Task)
        run = ForeignKeyField(ReconcileRun, null=True, on_delete="SET NULL")
        asked_at = DateTimeField(index=True)
        answered_at = DateTimeField()
        verdict = TextField()
        progress = DoubleField(null=True)
        error = TextField(null=True)

        class Meta:
            database = db
            table_name = "lookup"

    Task.add_index(Task.index(Task.next_lookup_at, name="task_due", where=SQL("next_lookup_at IS NOT NULL")))
    Task.add_index(Task.index(Task.created_at, Task.id, name="task_newest"))
    Task.add_index(Task.index(Task.status, Task.created_at, Task.id, name="task_status_newest"))
    Task.add_index(Task.index(Task.settled_at, Task.settled_by, name="task_settled"))
    Task.add_index(Task.index(Task.ref, name="task_ref"))
    Task.add_index(Task.index(Task.trace_id, name="task_trace_id"))
    Task.add_index(Task.index(Task.created_at, Task.id, name="task_disputed", where=SQL(DISPUTED)))
    db.create_tables([Task, Delivery, ReconcileRun, Lookup], safe=False)
