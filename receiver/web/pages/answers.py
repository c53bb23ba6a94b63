"""What we answered to a callback, as far as its delivery tells. Pure."""

import json
from dataclasses import dataclass

from receiver.ledger.models import Delivery


@dataclass(frozen=True, slots=True)
class Answer:
    """The HTTP status of an answer, what it meant, and its body where that is known word for word."""

    status: int
    meaning: str
    body: str | None = None


def answer_to(delivery: Delivery) -> Answer:
    """Return what the sender of a delivery was answered, unless that delivery waited in the spool.

    The ledger does not keep the answer. It follows from the verdict and the problem.
    """
    if not delivery.problem:
        return Answer(200, "It was kept and read. The answer named the task and the status that it had then.")
    problem = json.loads(delivery.problem)
    error = {"code": problem.get("code"), "message": problem.get("message")}
    if error["code"] == "too_large":
        return Answer(413, "It was too large. Its beginning was kept.", json.dumps({"error": error}))
    body = json.dumps({"received": True, "readable": False, "error": error})
    if error["code"] == "incomplete":
        meaning = "It was kept as far as it came. The sender had most likely gone before the answer."
    elif error["code"] == "shortened":
        meaning = "It was read, but only its beginning was kept."
    else:
        meaning = "It was kept, but it could not be read as a result."
    return Answer(202, meaning, body)


def may_have_been_spooled(answer: Answer) -> bool:
    """Tell whether another answer was possible: 202, when the delivery waited in the spool first."""
    return answer.status != 413
