"""Reconstructs from a delivery what we answered to its callback. Pure."""

import json
from dataclasses import dataclass

from receiver.ledger.models import Delivery


@dataclass(frozen=True, slots=True)
class Answer:
    """The HTTP status of an answer, its meaning, and its body if that is known exactly."""

    status: int
    meaning: str
    body: str | None = None


def answer_to(delivery: Delivery) -> Answer:
    """Return the answer to a delivery that did not go through the spool.

    The ledger does not store answers, but the delivery's problem determines them.
    """
    told = delivery.read_at_first.problem
    if not told:
        return Answer(200, "It was kept and read. The answer named the task and the status that it had then.")
    problem = json.loads(told)
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
    """Tell whether the answer may have been 202 instead, because the delivery went to the spool first."""
    return answer.status != 413
