"""Answers about settled tasks, which are kept for a minute."""

import json
from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger.models import Task
from receiver.upstream.services import DEFAULT, SERVICES
from receiver.web.gateway import settled
from receiver.web.gateway.settled import Answers
from tests.factories import finished_item, look_up, register

pytestmark = pytest.mark.usefixtures("ledger")


def settle(*task_ids: str) -> None:
    register(*task_ids, now=utcnow() - timedelta(minutes=5))
    look_up([finished_item(task_id) for task_id in task_ids])


def test_an_answer_is_read_once_a_minute():
    settle("t1")
    answers = Answers()
    assert json.loads(answers.find(DEFAULT, "t1") or b"")["id"] == "t1"
    Task.update(lookup_status=None).execute()
    assert answers.find(DEFAULT, "t1") is not None
    kept_until, answer = answers._kept["midjourney", "t1"]
    answers._kept["midjourney", "t1"] = (kept_until - 60, answer)
    assert answers.find(DEFAULT, "t1") is None


def test_nothing_is_kept_of_what_is_not_settled_or_of_another_service():
    register("t1")
    answers = Answers()
    assert answers.find(DEFAULT, "t1") is answers.find(DEFAULT, "unknown") is None
    settle("t2")
    assert answers.find(SERVICES["suno"], "t2") is None
    assert answers._kept == {}


def test_it_keeps_a_bounded_number_of_answers_and_none_that_is_large(monkeypatch):
    monkeypatch.setattr(settled, "_MOST_KEPT", 2)
    settle("t1", "t2", "t3")
    answers = Answers()
    for task_id in ("t1", "t2", "t3"):
        answers.find(DEFAULT, task_id)
    assert [task_id for _, task_id in answers._kept] == ["t2", "t3"]
    monkeypatch.setattr(settled, "_LARGEST_KEPT", 10)
    assert answers.find(DEFAULT, "t1") is not None
    assert [task_id for _, task_id in answers._kept] == ["t2", "t3"]
