"""A run keeps how far its clock was ahead of upstream's; an index finds the submission that made a task."""

from peewee import IntegerField


def up(migrator, db):
    migrator.migrate(migrator.add_column("reconcile_run", "clock_ahead", IntegerField(null=True)))
    db.execute_sql("CREATE INDEX submission_task ON submission (task_id) WHERE task_id IS NOT NULL")
