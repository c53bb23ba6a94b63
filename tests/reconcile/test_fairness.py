"""Whose turn it is among services: a table of how many batches each has due stands for the ledger."""

from datetime import datetime, timedelta

from receiver.ledger.models import Task
from receiver.ledger.store import Claim
from reconcile.fairness import Fairness

UNTIL = datetime(2026, 1, 31, 12)


class Due:
    """Gives a batch of the first service that has one due and is not left out."""

    def __init__(self, **batches: int) -> None:
        self.batches, self.asked = batches, 0

    def __call__(self, besides):
        self.asked += 1
        for service, left in self.batches.items():
            if left and service not in besides:
                self.batches[service] -= 1
                return Claim((Task(id=service, service=service),), UNTIL + timedelta(minutes=2))
        return Claim((), UNTIL)


def order(fairness: Fairness, claims: int, seconds_apart: float = 0.1) -> list[str]:
    claimed = (fairness.claim(number * seconds_apart) for number in range(claims))
    return [one.service if one.tasks else "none" for one in claimed]


def test_services_take_turns_however_much_is_due_of_one():
    assert order(Fairness(Due(a=9, b=2, c=1)), 8) == ["a", "b", "c", "a", "b", "a", "a", "a"]


def test_a_service_that_is_due_alone_gets_all_turns():
    assert order(Fairness(Due(a=3)), 4) == ["a", "a", "a", "none"]


def test_others_are_looked_for_once_a_second_while_there_are_none():
    due = Due(a=100)
    order(Fairness(due), 31, seconds_apart=0.1)
    assert due.asked <= 31 + 4


def test_a_service_that_is_due_later_gets_its_turn_within_a_second():
    due = Due(a=100)
    fairness = Fairness(due)
    assert order(fairness, 2) == ["a", "a"]
    due.batches["b"] = 1
    assert "b" in [fairness.claim(1 + number / 10).service for number in range(5)]
