"""The rows about what a watcher is told: Incident, Counter."""

from peewee import SQL, AutoField, BigAutoField, DateTimeField, DoubleField, IntegerField, TextField

from receiver.ledger.task import Row


class Incident(Row):
    """A trouble that lasts or has lasted: one open row a code. See `ledger.incidents`."""

    id = AutoField()
    code = TextField()
    message = TextField()  # what is wrong and what to do, as it was last seen
    began_at = DateTimeField()
    seen_at = DateTimeField()  # when it was last seen
    told_at = DateTimeField(null=True)  # when somebody was told that it began
    over_at = DateTimeField(null=True)
    closed_at = DateTimeField(null=True)  # nobody has to be told anything more
    next_try_at = DateTimeField(null=True)  # when somebody may be told; a claim moves it
    tries = IntegerField(default=0)

    class Meta:
        table_name = "incident"


Incident.add_index(
    Incident.index(Incident.code, name="incident_open", unique=True, where=SQL("over_at IS NULL"))
)
Incident.add_index(Incident.index(Incident.id, name="incident_unclosed", where=SQL("closed_at IS NULL")))
Incident.add_index(Incident.index(Incident.closed_at, name="incident_closed"))


class Counter(Row):
    """How often something has happened, by labels; see `ledger.counters`. Only the sum over shards counts."""

    id = BigAutoField()
    name = TextField()
    labels = TextField()  # values with slashes between them
    shard = IntegerField()
    value = DoubleField()

    class Meta:
        table_name = "counter"


Counter.add_index(Counter.index(Counter.name, Counter.labels, Counter.shard, name="counter_key", unique=True))
