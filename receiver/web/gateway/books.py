"""Keeps the books of submissions for the current request: the ledger's functions, now and by our settings."""

import logging
from functools import partial
from typing import Any

from flask import request

from receiver.clock import utcnow
from receiver.ledger import store, submissions
from receiver.ledger.engine.errors import DATABASE_ERRORS
from receiver.ledger.models import Submission
from receiver.ledger.submissions import Asked, Begun
from receiver.upstream.results import FINAL, Unreadable, read_item
from receiver.web.connections import is_gone
from receiver.web.current import current_settings, current_timetable
from receiver.web.errors import database_down

log = logging.getLogger(__name__)


def begin(asked: Asked) -> Begun:
    """Write a submission before it is sent, or return the one that it repeats."""
    return submissions.begin(asked, utcnow())


def free(submission: Submission) -> None:
    """Forget a submission of which upstream has taken nothing."""
    _try(submissions.free, submission)


def lose(submission: Submission) -> None:
    """Note that a submission's answer is lost."""
    _try(submissions.note_unclear, submission, utcnow())


def accept(submission: Submission, task_id: str, mode: str | None = None) -> None:
    """Register the task of a submission. The caller hears of it now, unless it has hung up.

    If the database fails, the caller still hears of it: the submission's row leads to the task.
    """
    settings, is_told = current_settings(), not _caller_is_gone()
    try:
        submissions.accept(
            submission,
            task_id,
            utcnow(),
            timetable=current_timetable(),
            forward_when=settings.forward_when,
            is_told=is_told,
            mode=mode,
        )
    except store.OtherService as problem:
        log.warning("A task was submitted under another service than it is known under: %s", problem)
        _try(partial(submissions.note_task, is_told=is_told), submission, task_id, utcnow())
    except DATABASE_ERRORS as problem:
        database_down(problem)


def tell(submission: Submission) -> None:
    """Note that a caller hears of the task of a submission, unless it has hung up."""
    if not _caller_is_gone():
        _try(submissions.note_told, submission, utcnow())


def untell(submission: Submission) -> None:
    """Note that the caller has hung up before the answer: a repetition of the submission gets its task."""
    _try(submissions.note_untold, submission, utcnow())


def untell_if_gone(submission: Submission) -> None:
    """Note it if the caller has hung up before the answer."""
    if _caller_is_gone():
        untell(submission)


def settle(told: Any, task_id: str) -> bool:
    """Settle a task by upstream's answer to its submission. Returns whether that is a final result."""
    try:
        result = read_item({"id": task_id, "response": told})
    except Unreadable:
        return False
    if result.status not in FINAL:
        return False
    _try(store.settle, result, utcnow())
    return True


def _caller_is_gone() -> bool:
    # Asked before the answer: afterwards nobody can tell whether the caller has read it.
    connection = request.environ.get("gunicorn.socket")  # None with another server
    return connection is not None and is_gone(connection)


def _try(write: Any, *arguments: Any) -> None:
    """Write what can be found out later too."""
    try:
        write(*arguments)
    except DATABASE_ERRORS as problem:
        database_down(problem)
