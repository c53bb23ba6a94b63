"""The database of this process; `db.init_database` binds it."""

from peewee import DatabaseProxy

database = DatabaseProxy()
