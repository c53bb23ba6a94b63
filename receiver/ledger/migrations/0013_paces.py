"""How long tasks take is learned. A look-up that brings nothing new is counted in its task."""

from peewee import AutoField, BigIntegerField, DateTimeField, Model, TextField


def up(migrator, db):
    class LearnedPace(Model):
        id = AutoField()
        service = TextField()
        type = TextField()
        mode = TextField()
        weights = TextField()
        learned_at = DateTimeField()

        class Meta:
            database = db
            table_name = "learned_pace"
            indexes = ((("service", "type", "mode"), True),)

    class Reader(Model):
        name = TextField(primary_key=True)
        event = BigIntegerField()

        class Meta:
            database = db
            table_name = "reader"

    migrator.migrate(
        migrator.add_column("task", "mode", TextField(null=True)),
        migrator.add_column("task", "looked_at", DateTimeField(null=True)),
    )
    db.create_tables([LearnedPace, Reader], safe=False)
