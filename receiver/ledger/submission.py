"""The row of a submission that the gateway relays."""

from peewee import SQL, BigAutoField, BlobField, DateTimeField, TextField

from receiver.ledger.task import Row


class Submission(Row):
    """A submission, written before it is sent. It is deleted when upstream shows that it took nothing.

    While `task_id` and `ended_at` are null it is open: in flight until `leased_until`, and then unclear.
    """

    id = BigAutoField()
    api_key = TextField()  # the name of the caller's key
    repeat_key = TextField(null=True)  # what a repetition shares with it, see `submissions.repeat_key`
    digest = BlobField()  # SHA-256 of what was asked
    service = TextField()
    type = TextField()
    trace_id = TextField()
    callback_url = TextField(null=True)  # the caller's own
    sent_at = DateTimeField()
    leased_until = DateTimeField()
    unclear_at = DateTimeField(null=True)  # when its answer was lost: upstream's, or ours
    task_id = TextField(null=True)
    told_at = DateTimeField(null=True)  # when a caller was told the task
    ended_at = DateTimeField(null=True)  # when upstream had shown that it never had it

    class Meta:
        table_name = "submission"


OPEN = SQL("task_id IS NULL AND ended_at IS NULL")
# Lost answers of which no caller knows the task: a repetition without a key belongs to one of these.
LOST = SQL("unclear_at IS NOT NULL AND told_at IS NULL AND ended_at IS NULL")

Submission.add_index(
    Submission.index(
        Submission.api_key,
        Submission.repeat_key,
        name="submission_repeated",
        where=SQL("repeat_key IS NOT NULL"),
        unique=True,
    )
)
Submission.add_index(Submission.index(Submission.sent_at, name="submission_open", where=OPEN))
Submission.add_index(
    Submission.index(Submission.ended_at, name="submission_ended", where=Submission.ended_at.is_null(False))
)
Submission.add_index(
    Submission.index(Submission.api_key, Submission.digest, name="submission_lost", where=LOST)
)
Submission.add_index(
    Submission.index(Submission.task_id, name="submission_task", where=Submission.task_id.is_null(False))
)
