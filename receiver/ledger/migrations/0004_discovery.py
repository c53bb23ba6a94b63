"""How far upstream's list of recent tasks has been searched for ours."""

from peewee import AutoField, DateTimeField, IntegerField, Model


def up(migrator, db):
    class Discovery(Model):
        id = AutoField()
        covered_to = DateTimeField()
        window_end = DateTimeField(null=True)
        listed = IntegerField()
        leased_until = DateTimeField(null=True)
        finished_at = DateTimeField(null=True)

        class Meta:
            database = db
            table_name = "discovery"

    db.create_tables([Discovery], safe=False)
