"""Whose turn it is: a source of due tasks that is a pair of lists stands for the ledger."""

from datetime import datetime, timedelta

import pytest

from receiver.ledger.models import Task
from receiver.ledger.store import Claim
from reconcile.turns import Turns

NOW = datetime(2026, 1, 31, 12)


def batch(*ids: str, doubtful: bool = False, lease: timedelta = timedelta(minutes=2)) -> Claim:
    return Claim(tuple(Task(id=one) for one in ids), NOW + lease, doubtful)


class Due:
    """Gives one batch after another of each kind."""

    def __init__(self, known: int = 0, doubtful: int = 0) -> None:
        self.left = {False: known, True: doubtful}

    def __call__(self, doubtful: bool) -> Claim:
        if not self.left[doubtful]:
            return batch(doubtful=doubtful)
        self.left[doubtful] -= 1
        return batch("doubtful" if doubtful else "known", doubtful=doubtful)


def order(turns: Turns, calls: int) -> str:
    asked = (turns.next(NOW) for _ in range(calls))
    return " ".join("none" if claimed is None else claimed.ids[0] for claimed in asked)


def test_doubtful_tasks_get_one_call_in_four_while_known_ones_wait():
    assert order(Turns(Due(known=6, doubtful=9)), 8) == " ".join(
        ["known"] * 3 + ["doubtful"]
    ) + " " + " ".join(["known"] * 3 + ["doubtful"])


@pytest.mark.parametrize(("due", "asked"), [(Due(known=4), "known " * 4), (Due(doubtful=4), "doubtful " * 4)])
def test_no_call_is_left_unused_for_want_of_the_other_kind(due, asked):
    assert order(Turns(due), 4) == asked.strip()


def test_a_known_task_that_becomes_due_is_next_however_many_doubtful_ones_wait():
    due = Due(doubtful=1000)
    turns = Turns(due)
    order(turns, 4)
    due.left[False] = 1
    assert order(turns, 1) == "known"


def test_halves_of_a_spoilt_batch_take_turns_with_new_tasks():
    turns = Turns(Due(known=3))
    turns.put(batch("half-1"), batch("half-2"))
    assert order(turns, 3) == "half-1 known half-2"


def test_it_is_exhausted_when_nothing_of_either_kind_is_due():
    turns = Turns(Due(known=1))
    assert order(turns, 2) == "known none"
    assert turns.exhausted
    assert not turns.has_more
    turns.put(batch("half"))
    assert turns.has_more
    assert order(turns, 2) == "half none"


def test_a_half_whose_lease_has_lapsed_is_forgotten_because_it_is_due_again():
    turns = Turns(Due())
    turns.put(batch("lapsed", lease=timedelta(0)), batch("held"))
    assert [claimed.ids for claimed in [turns.next(NOW)] if claimed] == [["held"]]


def test_what_was_not_asked_about_is_handed_out_once():
    turns = Turns(Due())
    turns.put(batch("a"), batch("b", doubtful=True))
    assert [claimed.ids for claimed in turns.take_rest()] == [["a"], ["b"]]
    assert turns.take_rest() == []


def test_what_was_claimed_of_one_service_can_be_taken_back():
    def of(service: str, doubtful: bool = False) -> Claim:
        return Claim((Task(id=service, service=service),), NOW + timedelta(minutes=2), doubtful)

    turns = Turns(Due())
    turns.put(of("a"), of("b"), of("a", doubtful=True))
    assert [one.doubtful for one in turns.take_rest_of("a")] == [False, True]
    assert [one.service for one in turns.take_rest()] == ["b"]
