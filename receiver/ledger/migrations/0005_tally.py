"""Totals that are kept as tasks change; and one index of due tasks for each of the two kinds that are."""

from peewee import (
    SQL,
    BigAutoField,
    BigIntegerField,
    BooleanField,
    DateTimeField,
    IntegerField,
    Model,
    SqliteDatabase,
    TextField,
)

KEY = ("hour", "status", "settled_by", "missed", "disputed", "shard")
HOUR = {
    "sqlite": "substr({row}.created_at, 1, 13)",
    "postgresql": "to_char({row}.created_at, 'YYYY-MM-DD HH24')",
}
# Of the row's own connection: two transactions that add to one row would wait for each other, and deadlock.
SHARD = {"sqlite": "0", "postgresql": "pg_backend_pid()"}
MISSED = "(COALESCE({row}.settled_by, '') = 'lookup' AND COALESCE({row}.claim_status, 'pending') = 'pending')"
DISPUTED = (
    "COALESCE(({row}.claim_status = 'failed' AND {row}.lookup_status = 'succeeded')"
    " OR ({row}.claim_status = 'succeeded' AND {row}.lookup_status = 'failed')"
    " OR ({row}.doubted_at IS NOT NULL AND COALESCE({row}.lookup_status, 'pending') = 'pending'), FALSE)"
)


def up(migrator, db):
    class Tally(Model):
        id = BigAutoField()
        hour = TextField()
        shard = IntegerField()
        status = TextField()
        settled_by = TextField()
        missed = BooleanField()
        disputed = BooleanField()
        tasks = BigIntegerField()

        class Meta:
            database = db
            table_name = "tally"

    class Task(Model):
        next_lookup_at = DateTimeField(null=True)
        created_at = DateTimeField()

        class Meta:
            database = db
            table_name = "task"

    columns = [getattr(Tally, name) for name in KEY]
    Tally.add_index(Tally.index(*columns, name="tally_key", unique=True))
    db.create_tables([Tally], safe=False)
    overdue = SQL("next_lookup_at IS NOT NULL AND status NOT IN ('failed', 'succeeded')")
    settled = SQL("next_lookup_at IS NOT NULL AND status NOT IN ('pending', 'expired')")
    missed = SQL("settled_by = 'lookup' AND COALESCE(claim_status, 'pending') = 'pending'")
    db.execute(Task.index(Task.next_lookup_at, name="task_unconfirmed", where=settled))
    db.execute(Task.index(Task.created_at, name="task_missed", where=missed))
    kind = "sqlite" if isinstance(db, SqliteDatabase) else "postgresql"
    for statement in _triggers(kind):
        db.execute_sql(statement)
    db.execute_sql(
        f"INSERT INTO tally ({', '.join(KEY)}, tasks)"
        f" SELECT {_key('task', kind, '0')}, COUNT(*) FROM task GROUP BY 1, 2, 3, 4, 5"
    )
    # Last, because who drops an index keeps readers out too.
    for name in ("task_due", "task_settled", "task_overdue"):
        migrator.migrate(migrator.drop_index("task", name))
    db.execute(Task.index(Task.next_lookup_at, name="task_overdue", where=overdue))


def _key(row, kind, shard=None):
    parts = (
        HOUR[kind],
        "{row}.status",
        "COALESCE({row}.settled_by, '')",
        MISSED,
        DISPUTED,
        shard or SHARD[kind],
    )
    return ", ".join(parts).format(row=row)


def _add(row, kind, number):
    return (
        f"INSERT INTO tally ({', '.join(KEY)}, tasks) VALUES ({_key(row, kind)}, {number})"
        f" ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET tasks = tally.tasks + excluded.tasks;"
    )


def _triggers(kind):
    old, new = _add("OLD", kind, -1), _add("NEW", kind, 1)
    differs = f"({_key('OLD', kind)}) <> ({_key('NEW', kind)})"
    if kind == "sqlite":
        return [
            f"CREATE TRIGGER task_tally_insert AFTER INSERT ON task BEGIN {new} END",
            f"CREATE TRIGGER task_tally_delete AFTER DELETE ON task BEGIN {old} END",
            f"CREATE TRIGGER task_tally_update AFTER UPDATE ON task WHEN {differs} BEGIN {old} {new} END",
        ]
    return [
        "CREATE FUNCTION tally_task() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF TG_OP <> 'INSERT' THEN {old} END IF;"
        f" IF TG_OP <> 'DELETE' THEN {new} END IF;"
        " RETURN NULL; END $$",
        "CREATE TRIGGER task_tally AFTER INSERT OR DELETE ON task FOR EACH ROW EXECUTE FUNCTION tally_task()",
        "CREATE TRIGGER task_tally_update AFTER UPDATE ON task FOR EACH ROW"
        f" WHEN ({differs}) EXECUTE FUNCTION tally_task()",
    ]
