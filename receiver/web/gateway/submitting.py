"""Submits for a caller, so that the task is known and nothing is paid twice.

See "The life of a submission" in docs/design.md.
"""

from flask import Response, request

from receiver.ledger.models import Submission
from receiver.ledger.submissions import Begun, State
from receiver.upstream.services import Lookups, Service
from receiver.upstream.submitting import Order, Wants, read_order
from receiver.web.current import current_settings
from receiver.web.gateway import books
from receiver.web.gateway.answers import Refused, use_trace_id
from receiver.web.gateway.orders import read_asked
from receiver.web.gateway.passing import outgoing, pass_on, read_body
from receiver.web.gateway.results import wait_for_result
from receiver.web.gateway.sending import Sent, acknowledgement, found_again, send_submission


def submit(service: Service, operation: str) -> Response:
    """Submit what the current request asks for, or return the task of the submission that it repeats.

    409: the submission with this key is in flight. 422: the key was used with another body. 502: upstream
    cannot be reached, and has taken nothing. 504: the submission is unclear.
    """
    body = read_body()
    streams = request.path in service.streaming_paths
    order = read_order(body, request.headers.get("Accept", ""), streams=streams)
    if order is None or _is_never_told(service, order):
        return pass_on(body)
    sent = outgoing(body)  # what cannot be sent is refused before anything is written
    begun = books.begin(read_asked(service, operation, order))
    use_trace_id(begun.submission.trace_id)
    if begun.state is State.NEW:
        return _answer(order, begun.submission, send_submission(sent, order, begun.submission))
    return _repeat(order, begun)


def _is_never_told(service: Service, order: Order) -> bool:
    """Tell whether the caller's own URL would never hear of the result: nobody could confirm it."""
    is_unconfirmable = service.lookups is Lookups.NONE and current_settings().forward_when == "confirmed"
    return is_unconfirmable and order.callback_url is not None


def _repeat(order: Order, begun: Begun) -> Response:
    submission = begun.submission
    if begun.state is State.OTHER:
        raise Refused(422, "This Idempotency-Key was used for another request.")
    if begun.state is State.IN_FLIGHT:
        raise Refused(409, "The same submission is in flight.", retry_after=5)
    if begun.state is State.UNCLEAR:
        return _answer(order, submission, found_again(submission))
    books.tell(submission)
    task_id = str(submission.task_id)
    return _answer(order, submission, Sent(acknowledgement(submission, task_id), task_id))


def _answer(order: Order, submission: Submission, sent: Sent) -> Response:
    """Return what the caller waits for: the acknowledgement, or the result."""
    if order.wants is Wants.TASK or sent.task_id is None or sent.is_final:
        return sent.answer
    return wait_for_result(submission, sent.task_id)
