"""Sends a submission once, and finds out what became of it before anything is answered."""

from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from flask import Response, current_app, jsonify

from receiver.ledger.models import Submission
from receiver.upstream.encodings import decoded
from receiver.upstream.relay import NotRelayed, Outgoing, Relayed
from receiver.upstream.results import Unreadable, parse_json
from receiver.upstream.submitting import Fate, Order, Wants, read_answer, to_send
from receiver.web.callback_urls import our_callback_url
from receiver.web.gateway import books
from receiver.web.gateway.answers import Refused, passed_on
from receiver.web.gateway.finder import current_finder
from receiver.web.gateway.lines import relay_lines
from receiver.web.gateway.orders import own_callback_url
from receiver.web.gateway.passing import LARGEST_BODY_BYTES, refused, relay_of

# Upstream answers at once where it is given a callback URL.
ANSWER_WITHIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a submission: upstream's answer, and the task unless nothing was taken.

    `is_final`: the answer is the result, or brings it.
    """

    answer: Response
    task_id: str | None = None
    is_final: bool = False


def send_submission(request: Outgoing, order: Order, submission: Submission) -> Sent:
    """Send a submission, which came in a request. Its task is registered before this returns.

    502: upstream cannot be reached, and has taken nothing. 504: the submission is unclear.
    """
    silent_for = None if order.wants is Wants.LINES else ANSWER_WITHIN_SECONDS
    try:
        relayed = relay_of(current_app).send(_what_to_send(request, order, submission), silent_for)
        if order.wants is Wants.LINES and relayed.status < HTTPStatus.MULTIPLE_CHOICES:
            return Sent(relay_lines(relayed, submission), is_final=True)
        content = relayed.read(LARGEST_BODY_BYTES, ANSWER_WITHIN_SECONDS)
    except NotRelayed as problem:
        if not problem.maybe_taken:
            books.free(submission)
            raise refused(problem) from None
        return _lost(submission)
    return _settle(order, submission, relayed, content)


def _what_to_send(request: Outgoing, order: Order, submission: Submission) -> Outgoing:
    callback_url = own_callback_url(order) or our_callback_url(submission.service)
    headers = [(name, value) for name, value in request.headers if name.lower() != "accept-encoding"]
    return replace(
        request,
        headers=[*headers, ("Accept-Encoding", "identity")],
        body=to_send(order, callback_url, submission.trace_id),
    )


def _lost(submission: Submission) -> Sent:
    books.lose(submission)
    return found_again(submission)


def found_again(submission: Submission) -> Sent:
    """Look for an unclear submission. 504: it is not found."""
    task_id = current_finder().find(submission)
    if task_id is None:
        books.lose(submission)  # the next caller may look for it
        raise Refused(
            504,
            "Upstream's answer was lost, and it is unclear whether the submission was taken."
            f" Backstop keeps looking for it. The trace id is {submission.trace_id}.",
        )
    books.accept(submission, task_id)
    books.tell(submission)  # a reconciler may have accepted it before, and told nobody
    return Sent(acknowledgement(submission, task_id), task_id)


def acknowledgement(submission: Submission, task_id: str) -> Response:
    """Return the answer to an asynchronous submission, as upstream would give it."""
    response = jsonify({"task_id": task_id, "trace_id": submission.trace_id})
    response.headers["x-trace-id"] = submission.trace_id
    return response


def _settle(order: Order, submission: Submission, relayed: Relayed, content: bytes) -> Sent:
    plain = _plain(content, relayed)
    fate, task_id = read_answer(relayed.status, plain)
    answer = passed_on(relayed, content)
    if fate is Fate.REFUSED:
        books.free(submission)
        return Sent(answer)
    if task_id is None:
        return _lost(submission)
    books.accept(submission, task_id, order.mode)
    is_final = order.wants is Wants.RESULT and books.settle(_json(plain), task_id)
    return Sent(answer, task_id, is_final)


def _plain(content: bytes, relayed: Relayed) -> bytes:
    try:
        return decoded(content, relayed.headers, LARGEST_BODY_BYTES)
    except Unreadable:
        return content


def _json(content: bytes) -> Any:
    return parse_json(content.decode("utf-8-sig"))
