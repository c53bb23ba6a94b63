"""Says what came of an attempt: its kind, and the error in words without URLs and secrets. Pure."""

import http.client
import socket
import ssl

from receiver.forward.addresses import NotPublicError
from receiver.forward.attempt import Kind
from receiver.forward.target import InvalidRequestError


def kind_of(status: int | None, problem: Exception | None) -> Kind:
    """Return the kind of an outcome. The status decides, also when the rest of the answer never came."""
    if status is None:
        if isinstance(problem, NotPublicError):
            return "forbidden"
        return "timeout" if isinstance(problem, TimeoutError) else "network"
    if 200 <= status < 300:
        return "delivered"
    if status == 410:
        return "gone"
    return "throttled" if status in (429, 503) else "refused"


def words_for(problem: Exception) -> str:
    """Return an error in words for people. What the server sent is not in them: it may repeat a secret."""
    if isinstance(problem, NotPublicError | InvalidRequestError):
        return str(problem)
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {problem.verify_message}"
    if isinstance(problem, ssl.SSLError):
        return f"TLS failed: {problem.reason or 'the connection was closed'}"
    if isinstance(problem, socket.gaierror):
        return f"the name cannot be looked up: {problem.strerror}"
    if isinstance(problem, http.client.HTTPException):
        is_end = isinstance(problem, http.client.RemoteDisconnected | http.client.IncompleteRead)
        return "the connection was closed before the answer ended" if is_end else "the answer is not HTTP"
    return (problem.strerror if isinstance(problem, OSError) else None) or str(problem)
