"""A task keeps the fields of upstream's item beside its response and request."""

from peewee import TextField


def up(migrator, db):
    migrator.migrate(migrator.add_column("task", "lookup_envelope", TextField(null=True)))
