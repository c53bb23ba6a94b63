"""Submissions that the gateway relays, and whose key a task was submitted with."""

from peewee import SQL, BigAutoField, BlobField, DateTimeField, Model, TextField


def up(migrator, db):
    class Submission(Model):
        id = BigAutoField()
        api_key = TextField()
        repeat_key = TextField(null=True)
        digest = BlobField()
        service = TextField()
        type = TextField()
        trace_id = TextField()
        callback_url = TextField(null=True)
        sent_at = DateTimeField()
        leased_until = DateTimeField()
        unclear_at = DateTimeField(null=True)
        task_id = TextField(null=True)
        told_at = DateTimeField(null=True)
        ended_at = DateTimeField(null=True)

        class Meta:
            database = db
            table_name = "submission"

    repeated = SQL("repeat_key IS NOT NULL")
    is_open = SQL("task_id IS NULL AND ended_at IS NULL")
    lost = SQL("unclear_at IS NOT NULL AND told_at IS NULL AND ended_at IS NULL")
    for name, columns, where in (
        ("submission_repeated", (Submission.api_key, Submission.repeat_key), repeated),
        ("submission_open", (Submission.sent_at,), is_open),
        ("submission_lost", (Submission.api_key, Submission.digest), lost),
    ):
        unique = name == "submission_repeated"
        Submission.add_index(Submission.index(*columns, name=name, where=where, unique=unique))
    db.create_tables([Submission], safe=False)
    migrator.migrate(migrator.add_column("task", "api_key", TextField(null=True)))
    db.execute_sql("CREATE INDEX task_api_key ON task (api_key, created_at, id) WHERE api_key IS NOT NULL")
