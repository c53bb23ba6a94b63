"""How often the receiver has come back, so that reconcilers ask at once what it may have missed."""

from peewee import AutoField, BigIntegerField, Model


def up(migrator, db):
    class ReceiverReturn(Model):
        id = AutoField()
        times = BigIntegerField()
        followed = BigIntegerField()

        class Meta:
            database = db
            table_name = "receiver_return"

    db.create_tables([ReceiverReturn], safe=False)
