"""What makes losses visible and attacks bounded.

Refusals are counted. A delivery tells its token. Tasks that only a callback names have their own index.
"""

from peewee import (
    SQL,
    AutoField,
    BigAutoField,
    BigIntegerField,
    DateTimeField,
    Model,
    SmallIntegerField,
    TextField,
)

DISPUTED = (
    "((claim_status = 'failed' AND lookup_status = 'succeeded')"
    " OR (claim_status = 'succeeded' AND lookup_status = 'failed')"
    " OR (doubted_at IS NOT NULL AND COALESCE(lookup_status, 'pending') = 'pending'))"
)
OPEN = "status NOT IN ('failed', 'succeeded')"
SETTLED = "status NOT IN ('pending', 'expired')"
KNOWN = "(registered_at IS NOT NULL OR lookup_status IS NOT NULL) AND refused_at IS NULL"
DOUBTFUL = "((registered_at IS NULL AND lookup_status IS NULL) OR refused_at IS NOT NULL)"


def up(migrator, db):
    class Task(Model):
        id = TextField(primary_key=True)
        created_at = DateTimeField()
        next_lookup_at = DateTimeField(null=True)
        acknowledged_at = DateTimeField(null=True)

        class Meta:
            database = db
            table_name = "task"

    class Delivery(Model):
        id = BigAutoField()
        token = SmallIntegerField(null=True)
        received_at = DateTimeField()

        class Meta:
            database = db
            table_name = "delivery"

    class Refusal(Model):
        id = AutoField()
        kind = TextField()
        hour = TextField()
        requests = BigIntegerField()
        first_at = DateTimeField()
        last_at = DateTimeField()
        remote_addr = TextField(null=True)
        reason = TextField(null=True)

        class Meta:
            database = db
            table_name = "refusal"

    Refusal.add_index(Refusal.index(Refusal.kind, Refusal.hour, name="refusal_key", unique=True))
    Refusal.add_index(Refusal.index(Refusal.last_at, name="refusal_last_at"))
    db.create_tables([Refusal], safe=False)
    migrator.migrate(
        migrator.add_column("task", "refused_at", DateTimeField(null=True)),
        migrator.add_column("task", "late_answers", SmallIntegerField(null=True)),
        migrator.add_column("task", "acknowledged_at", DateTimeField(null=True)),
        migrator.add_column("delivery", "token", SmallIntegerField(null=True)),
        migrator.drop_index("task", "task_overdue"),
        migrator.drop_index("task", "task_unconfirmed"),
        migrator.drop_index("task", "task_disputed"),
    )
    for index in (
        *(
            Task.index(
                Task.next_lookup_at, name=name, where=SQL(f"next_lookup_at IS NOT NULL AND {condition}")
            )
            for name, condition in (
                ("task_overdue", f"{OPEN} AND {KNOWN}"),
                ("task_unconfirmed", f"{SETTLED} AND {KNOWN}"),
                ("task_doubtful", DOUBTFUL),
            )
        ),
        Task.index(Task.created_at, Task.id, Task.acknowledged_at, name="task_disputed", where=SQL(DISPUTED)),
        Delivery.index(
            Delivery.token, Delivery.received_at, name="delivery_old_token", where=SQL("token > 0")
        ),
    ):
        db.execute(index)
