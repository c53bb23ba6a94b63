"""A delivery keeps its URL's service, when it was last read again, and how it was read at first."""

from peewee import DateTimeField, TextField


def up(migrator, db):
    migrator.migrate(
        migrator.add_column("delivery", "service", TextField(null=True)),
        migrator.add_column("delivery", "reread_at", DateTimeField(null=True)),
        migrator.add_column("delivery", "first_reading", TextField(null=True)),
    )
