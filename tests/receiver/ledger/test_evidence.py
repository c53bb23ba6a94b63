"""What each kind of evidence says about a task, without a database."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.ledger import evidence
from receiver.ledger.evidence import (
    ABSENT,
    BY_CALLBACK,
    BY_CALLER,
    BY_LOOKUP,
    Answer,
    Discovered,
    Registration,
)
from receiver.ledger.kinds import CALLBACK, LOOKUP, REGISTRATION, DiscoveryRow
from receiver.ledger.models import Task
from receiver.ledger.patience import Patience
from receiver.ledger.timetable import APART
from receiver.upstream import services
from receiver.upstream.results import read_callback, read_item
from tests.factories import (
    DAY,
    GRACE,
    TIMETABLE,
    body,
    failed_item,
    failure_body,
    finished_item,
    item,
    progress_body,
)

NOW = datetime(2026, 1, 31, 12)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
ERROR = Answer(error="upstream answered 500")
REFUSED = Answer(error="upstream answered 400 bad_request", refused=True)
ANSWERS = {
    "finished": Answer(read_item(finished_item())),
    "running": Answer(read_item(item("t1", {"progress": 40}))),
    "absent": Answer(error=ABSENT),
    "refused": REFUSED,
    "error": ERROR,
}


def claimed(**known) -> Task:
    known = {"silent_since": NOW - MINUTE, "leased_until": NOW + MINUTE, "attempts": 2} | known
    return Task(id="t1", service="midjourney", created_at=NOW - DAY, **known)


def of_lookup(answer, **known):
    patience = Patience(backoff=lambda *_: HOUR, give_up_after=DAY, doubt_after=GRACE)
    return evidence.of_lookup(claimed(**known), answer, NOW, patience, ())


def of_callback(raw=None, ref="order-7", confirm=False):
    return evidence.of_callback(read_callback(raw or body()), ref, NOW, TIMETABLE, confirm)


def of_discovered(one, ref=None):
    return evidence.of_discovered(Discovered(read_item(one), services.DEFAULT.name, ref), NOW, TIMETABLE)


def of_registrations(*registrations):
    return evidence.of_registrations(registrations, NOW, TIMETABLE)


class TestColumns:
    """Each row has all columns of its kind, whatever it says, and no others."""

    @pytest.mark.parametrize("ref", [None, "order-7"])
    def test_of_a_registration(self, ref):
        (row,) = of_registrations(Registration("t1", ref=ref))
        assert row.keys() == REGISTRATION.columns

    @pytest.mark.parametrize("raw", [body(), failure_body(), progress_body()])
    def test_of_a_callback(self, raw):
        assert of_callback(raw).keys() == CALLBACK.columns
        assert evidence.without_result(of_callback(raw)).keys() == CALLBACK.columns

    @pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
    def test_of_a_look_up(self, answer):
        assert of_lookup(answer).keys() == LOOKUP.columns

    @pytest.mark.parametrize("one", [finished_item(), failed_item(), item()])
    def test_of_a_discovery(self, one):
        assert of_discovered(one).keys() == DiscoveryRow.__annotations__.keys()


class TestRegistrations:
    def test_its_facts_have_the_caller_as_their_source_and_what_is_not_told_has_none(self):
        (row,) = of_registrations(Registration("t1", type="imagine"))
        assert (row["type"], row["type_source"], row["ref"], row["ref_source"]) == (
            "imagine",
            BY_CALLER,
            None,
            None,
        )
        assert (row["registered_at"], row["silent_since"], row["next_lookup_at"]) == (NOW, NOW, NOW + GRACE)

    def test_several_of_one_task_are_one_row(self):
        rows = of_registrations(
            Registration("b", type="imagine"),
            Registration("a"),
            Registration("b", type="edits", ref="order-7"),
        )
        assert [(row["id"], row["type"], row["ref"]) for row in rows] == [
            ("a", None, None),
            ("b", "edits", "order-7"),
        ]

    @given(st.data())
    def test_their_order_does_not_matter(self, data):
        text = st.none() | st.sampled_from("abc")
        some = data.draw(
            st.lists(st.builds(Registration, id=st.sampled_from("xyz"), type=text, ref=text, trace_id=text))
        )
        assert of_registrations(*some) == of_registrations(*data.draw(st.permutations(some)))


class TestCallback:
    @pytest.mark.parametrize(("raw", "status"), [(body(), "succeeded"), (failure_body(), "failed")])
    @pytest.mark.parametrize(("confirm", "due_at"), [(True, NOW), (False, None)])
    def test_a_final_one_settles_and_is_confirmed_at_once_or_never(self, raw, status, confirm, due_at):
        row = of_callback(raw, confirm=confirm)
        assert (row["status"], row["callback_status"]) == (status, status)
        assert (row["settled_by"], row["settled_at"], row["next_lookup_at"]) == ("callback", NOW, due_at)

    def test_progress_settles_nothing_and_is_a_sign_of_life(self):
        row = of_callback(progress_body(progress=40), confirm=True)
        assert (row["status"], row["settled_by"], row["settled_at"]) == ("pending", None, None)
        assert (row["callback_progress"], row["silent_since"], row["attempts"]) == (40, NOW, 0)
        assert row["next_lookup_at"] == NOW + GRACE

    @pytest.mark.parametrize(
        ("ref", "kept", "source"), [("a", "a", BY_CALLBACK), (None, None, None), ("a\0b", None, None)]
    )
    def test_its_url_tells_the_ref(self, ref, kept, source):
        row = of_callback(ref=ref)
        assert (row["ref"], row["ref_source"]) == (kept, source)

    def test_without_its_result_it_settles_nothing_and_is_asked_about_at_once(self):
        row = evidence.without_result(of_callback(confirm=False))
        assert (row["status"], row["callback_status"], row["callback_response"]) == (
            "pending",
            "pending",
            None,
        )
        assert (row["settled_by"], row["settled_at"], row["next_lookup_at"]) == (None, None, NOW)
        assert (row["ref"], row["delivery_count"]) == ("order-7", 1)
        assert of_callback(progress_body(progress=99))["callback_key"] < row["callback_key"]
        assert row["callback_key"] < of_callback(failure_body())["callback_key"]


class TestDiscovery:
    def test_a_final_one_is_settled_by_a_look_up_and_never_asked_about(self):
        row = of_discovered(finished_item())
        assert (row["status"], row["lookup_status"]) == ("succeeded", "succeeded")
        assert (row["settled_by"], row["settled_at"], row["next_lookup_at"]) == ("lookup", NOW, None)

    def test_a_running_one_is_asked_about_as_after_a_look_up(self):
        row = of_discovered(item("t1", type="edits"), ref="order-7")
        assert (row["status"], row["settled_by"], row["next_lookup_at"]) == ("pending", None, NOW + APART)
        assert (row["type"], row["type_source"], row["ref"], row["ref_source"]) == (
            *("edits", BY_LOOKUP),
            *("order-7", BY_LOOKUP),
        )


class TestLookUp:
    """The ladder of outcomes."""

    @pytest.mark.parametrize(
        ("answer", "verdict"),
        [
            ("finished", "succeeded"),
            ("running", "pending"),
            ("absent", "absent"),
            ("refused", "absent"),
            ("error", "error"),
        ],
    )
    def test_its_verdict(self, answer, verdict):
        assert ANSWERS[answer].verdict == verdict

    def test_a_final_result_settles_and_ends_the_asking(self):
        row = of_lookup(ANSWERS["finished"], silent_since=NOW - 9 * DAY, late_answers=2)
        assert (row["status"], row["lookup_status"], row["settled_by"]) == (
            "succeeded",
            "succeeded",
            "lookup",
        )
        assert (row["settled_at"], row["next_lookup_at"], row["gave_up_at"]) == (NOW, None, None)

    @pytest.mark.parametrize("answer", ["absent", "refused", "error"])
    def test_without_a_result_it_testifies_nothing(self, answer):
        row = of_lookup(ANSWERS[answer])
        assert (row["lookup_key"], row["lookup_status"], row["status"]) == (b"", None, "pending")
        assert {row[f"{name}_source"] for name in LOOKUP.facts} == {None}
        assert row["last_lookup_error"] == ANSWERS[answer].error

    @pytest.mark.parametrize(
        ("answer", "gives_up"),
        [("finished", False), ("error", False), ("running", False), ("absent", True), ("refused", True)],
    )
    def test_after_long_silence_only_an_answer_without_progress_gives_up(self, answer, gives_up):
        row = of_lookup(ANSWERS[answer], silent_since=NOW - 9 * DAY, late_answers=2)
        assert (row["gave_up_at"] is not None) == gives_up

    def test_an_error_that_may_pass_is_followed_by_another_look_up_within_minutes(self):
        row = of_lookup(ERROR, refused_at=NOW - DAY, late_answers=1)
        assert (row["next_lookup_at"], row["attempts"]) == (NOW + 2 * MINUTE, 3)
        assert (row["refused_at"], row["late_answers"]) == (NOW - DAY, 1)

    @pytest.mark.parametrize(
        ("answer", "refused_at"), [("refused", NOW), ("running", None), ("absent", None)]
    )
    def test_an_answer_tells_whether_its_id_is_refused(self, answer, refused_at):
        assert of_lookup(ANSWERS[answer], refused_at=NOW - DAY)["refused_at"] == refused_at

    def test_progress_beyond_what_either_witness_told_is_a_sign_of_life(self):
        for known, restarts in (((39, None), True), ((None, 39), True), ((39, 41), False), ((40, 0), False)):
            row = of_lookup(ANSWERS["running"], callback_progress=known[0], lookup_progress=known[1])
            assert (row["silent_since"] == NOW) == restarts

    def test_upstreams_former_result_stands_when_it_answers_without_one(self):
        row = of_lookup(ANSWERS["absent"], lookup_status="failed", silent_since=NOW - 9 * DAY, late_answers=2)
        assert (row["next_lookup_at"], row["gave_up_at"]) == (None, None)

    @pytest.mark.parametrize(
        ("told", "is_doubted"), [("succeeded", True), ("failed", False), ("pending", False)]
    )
    def test_only_a_success_of_callbacks_is_doubted(self, told, is_doubted):
        row = of_lookup(ANSWERS["absent"], callback_status=told, settled_at=NOW - DAY)
        assert (row["doubted_at"] is not None) == is_doubted

    @pytest.mark.parametrize(
        ("known", "is_unknown"),
        [({}, True), ({"registered_at": NOW}, False), ({"lookup_status": "pending"}, False)],
    )
    def test_an_id_that_only_callbacks_name_waits_longer(self, known, is_unknown):
        asked = []
        patience = Patience(
            backoff=lambda _, unknown: asked.append(unknown) or HOUR, give_up_after=DAY, doubt_after=GRACE
        )
        evidence.of_lookup(claimed(**known), ANSWERS["absent"], NOW, patience, ())
        assert asked == [is_unknown]

    def test_it_names_the_lease_under_which_it_was_made(self):
        assert of_lookup(ERROR)["leased_until"] == NOW + MINUTE

    def test_the_items_facts_have_a_look_up_as_their_source(self):
        answer = Answer(replace(read_item(finished_item(request={"prompt": "p"})), submitted_at=NOW - HOUR))
        row = of_lookup(answer)
        assert (row["prompt"], row["request_source"], row["trace_id_source"]) == ("p", BY_LOOKUP, None)
        assert (row["submitted_at"], row["submitted_at_source"]) == (NOW - HOUR, BY_LOOKUP)
