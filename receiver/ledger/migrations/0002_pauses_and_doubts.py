"""When upstream could not be asked, which callbacks are in doubt, and an index for what is overdue."""

from peewee import SQL, AutoField, BooleanField, DateTimeField, IntegerField, Model, TextField

DISPUTED = (
    "((claim_status = 'failed' AND lookup_status = 'succeeded')"
    " OR (claim_status = 'succeeded' AND lookup_status = 'failed')"
    " OR (doubted_at IS NOT NULL AND COALESCE(lookup_status, 'pending') = 'pending'))"
)


def up(migrator, db):
    class Pause(Model):
        id = AutoField()
        reason = TextField()
        account = BooleanField()
        started_at = DateTimeField()
        ended_at = DateTimeField(null=True, index=True)
        next_probe_at = DateTimeField(null=True)
        probes = IntegerField()

        class Meta:
            database = db
            table_name = "pause"

    class Task(Model):
        id = TextField(primary_key=True)
        created_at = DateTimeField()
        next_lookup_at = DateTimeField(null=True)

        class Meta:
            database = db
            table_name = "task"

    Pause.add_index(Pause.index(Pause.account, name="pause_open", unique=True, where=SQL("ended_at IS NULL")))
    db.create_tables([Pause], safe=False)
    migrator.migrate(
        migrator.add_column("task", "doubted_at", DateTimeField(null=True)),
        migrator.drop_index("task", "task_disputed"),
    )
    overdue = SQL("next_lookup_at IS NOT NULL AND status IN ('pending', 'expired')")
    for index in (
        Task.index(Task.created_at, Task.id, name="task_disputed", where=SQL(DISPUTED)),
        Task.index(Task.next_lookup_at, name="task_overdue", where=overdue),
    ):
        db.execute(index)
