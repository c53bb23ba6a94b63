"""A name of our own for each delivery, to keep it once; and the lease apart from when a task is due."""

from peewee import DateTimeField, TextField


def up(migrator, db):
    migrator.migrate(
        migrator.add_column("delivery", "uid", TextField(null=True)),
        migrator.add_index("delivery", ("uid",), unique=True),
        migrator.add_column("task", "leased_until", DateTimeField(null=True)),
    )
