"""Submissions through the gateway: written, sent to upstream, and registered, as its routes do it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from receiver.ledger import submissions
from receiver.ledger.engine.errors import DATABASE_ERRORS
from receiver.ledger.submissions import Asked, State
from tests.simulation.clock import Process, process_now
from tests.simulation.committing import CommitInOneThread

_COMMIT_WITHIN_SECONDS = 10.0


class Answer(Enum):
    """What became of a request to upstream."""

    TAKEN = "taken"
    LOST = "lost"  # upstream may have taken it
    REFUSED = "refused"  # upstream has taken nothing


@dataclass(frozen=True, slots=True)
class Sent:
    answer: Answer
    task_id: str = ""


class CommitOfEachProcess:
    """The product's group commit, one for each process of the world."""

    def __init__(self, write: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
        self._write = write
        self._commits: dict[Process | None, CommitInOneThread] = {}

    def commit(self, item: Any) -> Any:
        process = process_now()
        if process not in self._commits:
            self._commits[process] = CommitInOneThread(self._write, _COMMIT_WITHIN_SECONDS)
        return self._commits[process].commit(item)


def submit(asked: Asked, send: Callable[[], Sent], process: Process, timetable: Any, when: Any) -> str | None:
    """Submit once at most; return the task that the caller is told, None if it is told an error."""
    try:
        begun = submissions.begin(asked, process.clock.now())
    except DATABASE_ERRORS:
        return None
    if begun.state is not State.NEW:
        return begun.submission.task_id if begun.state is State.TAKEN else None
    sent = send()
    try:
        if sent.answer is Answer.TAKEN:
            submissions.accept(
                begun.submission, sent.task_id, process.clock.now(), timetable=timetable, forward_when=when
            )
            return sent.task_id
        if sent.answer is Answer.REFUSED:
            submissions.free(begun.submission)
        else:
            submissions.note_unclear(begun.submission, process.clock.now())
    except DATABASE_ERRORS:
        pass  # it stays open, and is looked for
    return None
