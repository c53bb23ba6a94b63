"""What the pages ask: how long results took, the slowest recovery, which runs asked, lists in order."""

from peewee import (
    SQL,
    BigAutoField,
    BigIntegerField,
    BooleanField,
    DateTimeField,
    IntegerField,
    Model,
    SmallIntegerField,
    SqliteDatabase,
    TextField,
)

KEY = ("hour", "status", "settled_by", "missed", "disputed", "took", "shard")
HOUR = {
    "sqlite": "substr({row}.created_at, 1, 13)",
    "postgresql": "to_char({row}.created_at, 'YYYY-MM-DD HH24')",
}
SHARD = {"sqlite": "0", "postgresql": "pg_backend_pid()"}
MISSED = "(COALESCE({row}.settled_by, '') = 'lookup' AND COALESCE({row}.claim_status, 'pending') = 'pending')"
DISPUTED = (
    "COALESCE(({row}.claim_status = 'failed' AND {row}.lookup_status = 'succeeded')"
    " OR ({row}.claim_status = 'succeeded' AND {row}.lookup_status = 'failed')"
    " OR ({row}.doubted_at IS NOT NULL AND COALESCE({row}.lookup_status, 'pending') = 'pending'), FALSE)"
)
STARTED = "COALESCE({row}.submitted_at, {row}.created_at)"
SECONDS = {
    "sqlite": f"(julianday({{row}}.settled_at) - julianday({STARTED})) * 86400",
    "postgresql": f"EXTRACT(EPOCH FROM {{row}}.settled_at - {STARTED})",
}
STEPS = (5, 15, 30, 60, 120, 180, 300, 600, 1800, 3600, 21600)
# The LIMIT keeps SQLite from computing the seconds anew for each comparison.
TOOK = (
    "CASE WHEN {row}.settled_at IS NULL THEN -1 ELSE (SELECT CASE"
    + "".join(f" WHEN s < {step} THEN {number}" for number, step in enumerate(STEPS))
    + f" ELSE {len(STEPS)} END FROM (SELECT {{seconds}} AS s LIMIT 1) AS spent) END"
)
# All that the key is made of: cheaper to compare than the key.
COLUMNS = (
    *("created_at", "status", "settled_by", "claim_status", "lookup_status", "doubted_at"),
    *("settled_at", "submitted_at"),
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
        took = SmallIntegerField()
        tasks = BigIntegerField()

        class Meta:
            database = db
            table_name = "tally"

    class Task(Model):
        id = TextField(primary_key=True)
        ref = TextField(null=True)
        trace_id = TextField(null=True)
        created_at = DateTimeField()
        submitted_at = DateTimeField(null=True)
        settled_at = DateTimeField(null=True)

        class Meta:
            database = db
            table_name = "task"

    class ReconcileRun(Model):
        id = BigAutoField()

        class Meta:
            database = db
            table_name = "reconcile_run"

    kind = "sqlite" if isinstance(db, SqliteDatabase) else "postgresql"
    for statement in _without_triggers(kind):
        db.execute_sql(statement)
    db.drop_tables([Tally])
    Tally.add_index(Tally.index(*(getattr(Tally, name) for name in KEY), name="tally_key", unique=True))
    db.create_tables([Tally], safe=False)
    for statement in _triggers(kind):
        db.execute_sql(statement)
    db.execute_sql(
        f"INSERT INTO tally ({', '.join(KEY)}, tasks)"
        f" SELECT {_key('task', kind, '0')}, COUNT(*) FROM task GROUP BY 1, 2, 3, 4, 5, 6"
    )
    for name in ("task_missed", "task_ref", "task_trace_id"):
        migrator.migrate(migrator.drop_index("task", name))
    missed = SQL("settled_by = 'lookup' AND COALESCE(claim_status, 'pending') = 'pending'")
    newest_missed = (Task.created_at, Task.id, Task.submitted_at, Task.settled_at)
    asked, answered = SQL("calls > 0"), SQL("calls > 0 AND errors * 2 <= calls")
    for index in (
        Task.index(*newest_missed, name="task_missed", where=missed),
        Task.index(Task.ref, Task.created_at, Task.id, name="task_ref", where=Task.ref.is_null(False)),
        Task.index(
            Task.trace_id,
            Task.created_at,
            Task.id,
            name="task_trace_id",
            where=Task.trace_id.is_null(False),
        ),
        ReconcileRun.index(ReconcileRun.id, name="reconcile_run_asked", where=asked),
        ReconcileRun.index(ReconcileRun.id, name="reconcile_run_answered", where=answered),
    ):
        db.execute(index)


def _key(row, kind, shard=None):
    parts = (
        HOUR[kind],
        "{row}.status",
        "COALESCE({row}.settled_by, '')",
        MISSED,
        DISPUTED,
        TOOK.replace("{seconds}", SECONDS[kind]),
        shard or SHARD[kind],
    )
    return ", ".join(parts).format(row=row)


def _add(row, kind, number):
    return (
        f"INSERT INTO tally ({', '.join(KEY)}, tasks) VALUES ({_key(row, kind)}, {number})"
        f" ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET tasks = tally.tasks + excluded.tasks;"
    )


def _without_triggers(kind):
    if kind == "sqlite":
        return [f"DROP TRIGGER task_tally_{event}" for event in ("insert", "delete", "update")]
    return [
        "DROP TRIGGER task_tally ON task",
        "DROP TRIGGER task_tally_update ON task",
        "DROP FUNCTION tally_task",
    ]


def _triggers(kind):
    old, new = _add("OLD", kind, -1), _add("NEW", kind, 1)
    differs = {"sqlite": "IS NOT", "postgresql": "IS DISTINCT FROM"}[kind]
    before, after = (", ".join(f"{row}.{column}" for column in COLUMNS) for row in ("OLD", "NEW"))
    changed = f"({before}) {differs} ({after})"
    if kind == "sqlite":
        return [
            f"CREATE TRIGGER task_tally_insert AFTER INSERT ON task BEGIN {new} END",
            f"CREATE TRIGGER task_tally_delete AFTER DELETE ON task BEGIN {old} END",
            f"CREATE TRIGGER task_tally_update AFTER UPDATE ON task WHEN {changed} BEGIN {old} {new} END",
        ]
    return [
        "CREATE FUNCTION tally_task() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF TG_OP <> 'INSERT' THEN {old} END IF;"
        f" IF TG_OP <> 'DELETE' THEN {new} END IF;"
        " RETURN NULL; END $$",
        "CREATE TRIGGER task_tally AFTER INSERT OR DELETE ON task FOR EACH ROW EXECUTE FUNCTION tally_task()",
        "CREATE TRIGGER task_tally_update AFTER UPDATE ON task FOR EACH ROW"
        f" WHEN ({changed}) EXECUTE FUNCTION tally_task()",
    ]
