"""Indexes of refs and trace ids without the tasks that have none: each callback paid for their entries."""

from peewee import Model, TextField


def up(migrator, db):
    class Task(Model):
        ref = TextField(null=True)
        trace_id = TextField(null=True)

        class Meta:
            database = db
            table_name = "task"

    for column in (Task.ref, Task.trace_id):
        name = f"task_{column.name}"
        migrator.migrate(migrator.drop_index("task", name))
        db.execute(Task.index(column, name=name, where=column.is_null(False)))
