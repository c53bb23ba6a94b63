"""Which submission a request repeats that has neither a key nor a trace id of its own."""

import logging
from datetime import datetime, timedelta

import pytest
from peewee import OperationalError, chunked

from receiver.ledger import lost as lost_submissions
from receiver.ledger import submissions
from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.engine.group_commit import MOST_TOGETHER
from receiver.ledger.models import Submission, Task, database
from receiver.ledger.submissions import IN_FLIGHT_FOR, Asked, State
from receiver.ledger.unclear import give_to_submissions, known_as_submitted
from tests.factories import TIMETABLE

pytestmark = pytest.mark.usefixtures("ledger")

NOW = datetime(2026, 1, 31, 12)
MINUTE = timedelta(minutes=1)


def begin(trace_id: str, at: datetime = NOW, content: bytes = b"a fox") -> submissions.Begun:
    return submissions.begin(Asked("web", "midjourney", "imagine", trace_id, content), at)


def lose(trace_id: str, at: datetime = NOW, content: bytes = b"a fox") -> submissions.Begun:
    begun = begin(trace_id, at, content)
    submissions.note_unclear(begun.submission, at)
    return begun


def test_one_that_is_in_flight_is_not_repeated_and_another_content_neither():
    begin("first")
    assert begin("second", NOW + MINUTE).state is State.NEW
    lose("third", NOW + MINUTE)
    assert begin("fourth", NOW + MINUTE, b"a cat").state is State.NEW


def test_one_whose_process_has_died_is_repeated_once_it_is_no_longer_in_flight():
    died = begin("first")
    again = begin("second", NOW + IN_FLIGHT_FOR)
    assert (again.state, again.submission.id) == (State.UNCLEAR, died.submission.id)


def test_one_of_which_upstream_has_shown_nothing_is_repeated_however_late():
    lost = lose("first")
    again = begin("second", NOW + 60 * MINUTE)
    assert (again.state, again.submission.id) == (State.UNCLEAR, lost.submission.id)
    submissions.end([lost.submission], NOW + 60 * MINUTE)
    assert begin("third", NOW + 61 * MINUTE).state is State.NEW


def test_a_task_that_was_found_and_told_to_nobody_goes_to_the_next_caller():
    lost = lose("first")
    submissions.accept(
        lost.submission, "t1", NOW, timetable=TIMETABLE, forward_when="confirmed", is_told=False
    )
    again = begin("second", NOW + MINUTE)
    assert (again.state, again.submission.task_id) == (State.TAKEN, "t1")
    submissions.note_told(again.submission, NOW + MINUTE)
    assert begin("third", NOW + MINUTE).state is State.NEW


def accept(begun: submissions.Begun, task_id: str, *, is_told: bool) -> None:
    submissions.accept(
        begun.submission, task_id, NOW, timetable=TIMETABLE, forward_when="confirmed", is_told=is_told
    )


def test_a_task_is_logged_once_it_is_in_the_ledger_and_not_before(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    begun = begin("first")
    with monkeypatch.context() as patch:
        patch.setattr(submissions, "_note_task", fail)
        with pytest.raises(OperationalError):
            accept(begun, "t1", is_told=True)
    assert (Task.select().count(), caplog.messages) == (0, [])
    accept(begun, "t1", is_told=True)
    assert caplog.messages == ["Task t1: registered."]


def fail(*_: object) -> None:
    raise OperationalError("the disk is full")


def test_the_task_of_a_caller_who_hung_up_before_the_answer_goes_to_the_next_caller_and_to_no_other():
    accept(begin("first"), "t1", is_told=False)
    again = begin("second", NOW + MINUTE)
    assert (again.state, again.submission.task_id) == (State.TAKEN, "t1")
    submissions.note_told(again.submission, NOW + MINUTE)
    assert begin("third", NOW + MINUTE).state is State.NEW


@pytest.mark.parametrize("found_first", [True, False])
def test_the_task_of_a_caller_who_was_told_goes_to_no_other_although_a_reconciler_found_it_too(found_first):
    begun = begin("first")
    accept(begun, "t1", is_told=not found_first)
    accept(begun, "t1", is_told=found_first)
    assert (Submission.get().task_id, Submission.get().told_at) == ("t1", NOW)
    assert begin("second", NOW + MINUTE).state is State.NEW


def test_the_task_of_a_caller_who_hung_up_while_it_waited_for_the_result_goes_to_the_next_caller():
    begun = begin("first")
    accept(begun, "t1", is_told=True)
    submissions.note_untold(begun.submission, NOW)
    again = begin("second", NOW + MINUTE)
    assert (again.state, again.submission.task_id) == (State.TAKEN, "t1")
    assert begin("third", NOW + 11 * MINUTE).state is State.NEW


def test_two_lost_ones_go_to_two_callers_and_a_third_is_told_to_wait():
    lost = [begin("first"), begin("second")]
    for one in lost:
        submissions.note_unclear(one.submission, NOW)
    again = [begin(f"again-{number}", NOW + MINUTE) for number in range(3)]
    assert [one.state for one in again] == [State.UNCLEAR, State.UNCLEAR, State.IN_FLIGHT]
    assert [one.submission.id for one in again[:2]] == [one.submission.id for one in lost]


def test_no_task_is_given_to_two_submissions_of_one_trace_id():
    taken, lost, later = begin("same", content=b"1"), begin("same", content=b"2"), begin("same", content=b"3")
    submissions.accept(taken.submission, "t1", NOW, timetable=TIMETABLE, forward_when="confirmed")
    open_ones = [lost.submission, later.submission]
    assert give_to_submissions(open_ones, {"same": ["t1"]}) == {}
    assert give_to_submissions(open_ones, {"same": ["t1", "t2"]}) == {lost.submission.id: "t2"}
    both = {lost.submission.id: "t2", later.submission.id: "t3"}
    assert give_to_submissions(open_ones, {"same": ["t1", "t2", "t3"]}) == both


def test_after_an_outage_each_of_very_many_lost_ones_is_found():
    asked = [Asked("web", "midjourney", "imagine", f"lost-{n}", b"content %d" % n) for n in range(1_500)]
    rows = [submissions._row(one, NOW) | {"unclear_at": NOW, "leased_until": NOW} for one in asked]
    with writing():
        for some in chunked(rows, 100):
            Submission.insert_many(some).execute()
    for number in (0, 700, 1_499):
        again = begin(f"again-{number}", NOW + MINUTE, b"content %d" % number)
        assert (again.state, again.submission.trace_id) == (State.UNCLEAR, f"lost-{number}")


def test_very_many_lost_ones_of_one_content_hide_none_of_another():
    many = [
        Asked("web", "midjourney", "imagine", f"lost-{n}", b"a fox")
        for n in range(lost_submissions._MOST_AT_ONCE)
    ]
    rows = [submissions._row(one, NOW) | {"unclear_at": NOW, "leased_until": NOW} for one in many]
    with writing():
        for some in chunked(rows, 100):
            Submission.insert_many(some).execute()
    lost = lose("last", content=b"a wolf")
    asked = [Asked("web", "midjourney", "imagine", "again", content) for content in (b"a fox", b"a wolf")]
    fox, wolf = submissions._write_begun([(one, NOW + MINUTE) for one in asked])
    assert fox.state is State.UNCLEAR
    assert (wolf.state, wolf.submission.id) == (State.UNCLEAR, lost.submission.id)


def test_of_a_group_each_is_compared_with_what_it_repeats():
    lose("first", NOW)
    asked = [Asked("web", "midjourney", "imagine", f"g{n}", b"content %d" % n) for n in range(MOST_TOGETHER)]
    asked[40] = Asked("web", "midjourney", "imagine", "again", b"a fox")
    asked[7] = Asked("web", "midjourney", "imagine", "keyed", b"a fox", repeat_key="key:1")
    begun = submissions._write_begun([(one, NOW + MINUTE) for one in asked])
    states = [one.state for one in begun]
    assert [place for place, state in enumerate(states) if state is not State.NEW] == [40]
    assert begun[40].submission.trace_id == "first"


def test_one_whose_key_becomes_free_at_the_same_moment_is_sent(monkeypatch):
    asked = Asked("web", "midjourney", "imagine", "first", b"a fox", repeat_key="key:k")
    first, insert = submissions.begin(asked, NOW), submissions._insert.returning

    def insert_too_early(rows):
        written = insert(rows)
        if rows and not written:
            Submission.delete().where(Submission.id == first.submission.id).execute()
        return written

    monkeypatch.setattr(submissions._insert, "returning", insert_too_early)
    again = submissions.begin(asked, NOW)
    assert (again.state, Submission.get().id) == (State.NEW, again.submission.id)


def test_lost_ones_are_found_by_indexes_however_many_submissions_are_kept():
    sql, values = lost_submissions._build_lost(NOW, NOW - MINUTE, [b"a fox"]).sql()
    with database.atomic():
        if on_postgresql():  # in an empty table it would not care
            database.execute_sql("SET LOCAL enable_seqscan = off")
        explain = "EXPLAIN" if on_postgresql() else "EXPLAIN QUERY PLAN"
        plan = str(database.execute_sql(f"{explain} {sql}", values).fetchall())
    assert "submission_open" in plan
    assert "submission_lost" in plan


def test_the_submission_that_made_a_task_is_found_by_an_index(monkeypatch):
    made = lose("trace")
    submissions.note_task(made.submission, "t1", NOW)
    values = {**made.submission.__data__, "digest": b"another"}
    rows = [{**values, "id": number, "task_id": f"other-{number}"} for number in range(1000, 4000)]
    with writing():
        for some in chunked(rows, 500):
            Submission.insert_many(some).execute()
        database.execute_sql("ANALYZE submission")
    statements, execute = [], database.obj.execute_sql
    with monkeypatch.context() as patch:
        patch.setattr(database.obj, "execute_sql", lambda *asked: statements.append(asked) or execute(*asked))
        assert known_as_submitted(["t1", "t2", "other-1500"]) == {"t1", "other-1500"}
    ((sql, parameters),) = [asked for asked in statements if asked[0].startswith("SELECT")]
    explain = "EXPLAIN" if on_postgresql() else "EXPLAIN QUERY PLAN"
    with database.connection_context():
        plan = str(database.execute_sql(f"{explain} {sql}", parameters).fetchall())
    assert "submission_task" in plan, plan
