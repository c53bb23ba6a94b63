"""What the answer to a call says about each of the tasks that it asked about."""

from dataclasses import replace

from receiver.ledger.answers import match_answers
from receiver.ledger.evidence import Answer
from receiver.ledger.reading import tally
from receiver.ledger.store import Claim
from receiver.upstream.services import next_service
from reconcile.calls import Asked
from reconcile.poison import Suspicion


def answers_of(claimed: Claim, asked: Asked, suspicion: Suspicion) -> dict[str, Answer]:
    """Return the answer about each claimed task, by id."""
    ids = claimed.ids
    if asked.error is None:
        return _with_next_service(claimed, match_answers(ids, asked.items))
    refused = len(ids) == 1 and suspicion.is_about_id(asked.error)
    return {task_id: Answer(error=str(asked.error), refused=refused) for task_id in ids}


def _with_next_service(claimed: Claim, answers: dict[str, Answer]) -> dict[str, Answer]:
    """Let absent tasks whose service is only assumed be looked for in the next service in use."""
    assumed = {task.id for task in claimed.tasks if task.service_is_assumed}
    absent = [task_id for task_id in assumed if answers[task_id].verdict == "absent"]
    if not absent:
        return answers
    elsewhere = next_service(claimed.service, tally.services_in_use())
    return answers | {task_id: replace(answers[task_id], elsewhere=elsewhere) for task_id in absent}
