"""Who sends what: a forward goes to one process at a time, in order for its task, and each host has its places."""

import re
import threading
from collections import Counter, defaultdict

import pytest

from receiver.ledger import endpoints, forwards
from receiver.ledger.due_forwards import LEASE, PER_HOST, is_anything_to_do
from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.forwards import release
from receiver.ledger.models import Attempt, Endpoint, Forward, database
from tests.forwarding import (
    APP,
    DAY,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    attempted,
    claim,
    found,
    hold,
    ids,
    make_apps,
    make_forward,
    make_forwards,
    note,
)

pytestmark = pytest.mark.usefixtures("ledger")
READER = "forwards"


class TestLease:
    def test_what_is_claimed_is_not_claimed_again_until_its_lease_lapses(self):
        (app,) = make_apps(APP)
        number = make_forward(app, "t1")
        assert ids(claim(NOW, 10)) == [number]
        assert claim(NOW + LEASE - SECOND, 10) == []
        assert not is_anything_to_do(NOW + LEASE - SECOND, READER)
        assert is_anything_to_do(NOW + LEASE, READER)
        assert ids(claim(NOW + LEASE, 10)) == [number]

    def test_what_is_released_is_due_at_once(self):
        (app,) = make_apps(APP)
        make_forward(app, "t1")
        claimed = claim(NOW, 10)
        release(claimed, NOW)
        assert ids(claim(NOW, 10)) == ids(claimed)

    def test_a_release_after_the_lease_leaves_it_to_the_process_that_has_it_now(self):
        (app,) = make_apps(APP)
        make_forward(app, "t1")
        late = claim(NOW, 10)
        claim(NOW + LEASE, 10)
        release(late, NOW + LEASE)
        assert claim(NOW + LEASE, 10) == []

    def test_a_failure_after_the_lease_leaves_it_to_the_process_that_has_it_now(self):
        (app,) = make_apps(APP)
        number = make_forward(app, "t1")
        (late,) = claim(NOW, 10)
        (now,) = claim(NOW + LEASE, 10)
        note(late, NOW + LEASE, "HTTP 500")
        assert found(number).leased_until == now.leased_until
        assert (found(number).attempts, Attempt.select().count()) == (0, 1)

    def test_a_success_after_the_lease_counts(self):
        (app,) = make_apps(APP)
        number = make_forward(app, "t1")
        (late,) = claim(NOW, 10)
        (now,) = claim(NOW + LEASE, 10)
        note(late, NOW + LEASE)
        note(now, NOW + LEASE + SECOND, "HTTP 500")
        assert found(number).status == "delivered"
        assert claim(NOW + DAY, 10) == []

    def test_a_success_counts_even_if_another_process_has_given_up_meanwhile(self):
        (app,) = make_apps(APP)
        number = make_forward(app, "t1")
        (late,) = claim(NOW, 10)
        (now,) = claim(NOW + LEASE, 10)
        note(now, NOW + LEASE, "HTTP 500", next_attempt_at=None)
        assert found(number).status == "failed"
        note(late, NOW + LEASE + SECOND)
        assert found(number).status == "delivered"

    def test_a_forward_that_was_deleted_meanwhile_keeps_no_other_from_being_noted(self):
        (app,) = make_apps(APP)
        _, kept = make_forwards(app, [("t1", 1), ("t2", 1)])
        gone, other = claim(NOW, 10)
        with writing():
            Forward.delete().where(Forward.id == gone.id).execute()
        forwards.note([attempted(gone, NOW), attempted(other, NOW)], NOW)
        assert found(kept).status == "delivered"

    def test_room_bounds_a_claim(self):
        (app,) = make_apps(APP)
        numbers = make_forwards(app, [(f"t{n}", 1) for n in range(6)])
        assert ids(claim(NOW, 2)) == [numbers[0], numbers[5]]  # one of them is the newest
        assert len(claim(NOW, 64)) == 4


class TestOrder:
    def test_a_later_event_of_a_task_waits_for_the_earlier_one(self):
        (app,) = make_apps(APP)
        first, second = make_forwards(app, [("t1", 1), ("t1", 2)])
        (claimed,) = claim(NOW, 10)
        assert claimed.id == first
        note(claimed, NOW, "HTTP 500")
        assert claim(NOW, 10) == []  # the first is tried again in a minute
        (claimed,) = claim(NOW + MINUTE, 10)
        note(claimed, NOW + MINUTE)
        assert ids(claim(NOW + MINUTE, 10)) == [second]

    def test_it_goes_on_when_the_earlier_one_is_given_up(self):
        (app,) = make_apps(APP)
        _, second = make_forwards(app, [("t1", 1), ("t1", 2)])
        note(claim(NOW, 10)[0], NOW, "HTTP 500", next_attempt_at=None)
        assert ids(claim(NOW, 10)) == [second]

    def test_other_tasks_and_other_endpoints_do_not_wait(self):
        one, other = make_apps(APP, "https://other.example.com")
        make_forwards(one, [("t1", 1), ("t1", 2), ("t2", 1)])
        make_forward(other, "t1")
        claimed = [(forward.endpoint.id, forward.task_id, forward.sequence) for forward in claim(NOW, 10)]
        assert sorted(claimed) == [(one.id, "t1", 1), (one.id, "t2", 1), (other.id, "t1", 1)]

    @pytest.mark.direct
    def test_claims_at_once_give_no_forward_to_two_and_keep_order_and_places(self):
        apps = make_apps(*(f"https://app{n}.example.com" for n in range(3)))
        events = [(f"t{task}", sequence) for task in range(10) for sequence in (1, 2, 3)]
        for app in apps:
            make_forwards(app, events)
        lock, problems = threading.Lock(), []
        running: set[tuple[int, str]] = set()
        at_host: Counter[int] = Counter()
        told = defaultdict(list)

        def work():
            try:
                for _ in range(400):
                    claimed = claim(NOW, 4)
                    with lock:
                        for one in claimed:
                            place = (one.endpoint_id, one.task_id)
                            at_host[one.endpoint_id] += 1
                            assert place not in running, place
                            assert at_host[one.endpoint_id] <= PER_HOST, at_host
                            running.add(place)
                            told[place].append(one.sequence)
                    with lock:  # before others can claim what follows
                        for one in claimed:
                            running.remove((one.endpoint_id, one.task_id))
                            at_host[one.endpoint_id] -= 1
                    if claimed:
                        forwards.note([attempted(one, NOW) for one in claimed], NOW)
                    elif Forward.select().where(Forward.status == "pending").count() == 0:
                        return
            except BaseException as problem:
                problems.append(problem)
                raise
            finally:
                database.close()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems
        assert Forward.select().where(Forward.status != "delivered").count() == 0
        assert set(map(tuple, told.values())) == {(1, 2, 3)}
        assert len(told) == 30


class TestPlaces:
    def test_a_host_gets_its_places_and_no_more(self):
        one, other = make_apps(APP, "https://other.example.com")
        make_forwards(one, [(f"t{n}", 1) for n in range(30)])
        make_forward(other, "t1")
        claimed = Counter(forward.endpoint.id for forward in claim(NOW, 64))
        assert claimed == {one.id: PER_HOST, other.id: 1}
        assert claim(NOW, 64) == []
        assert len(claim(NOW + LEASE + SECOND, 64)) == PER_HOST + 1  # who had them has died

    def test_endpoints_on_one_host_share_its_places(self):
        apps = make_apps(*(f"{APP}/{n}" for n in range(3)))
        for app in apps:
            make_forwards(app, [(f"t{n}", 1) for n in range(20)])
        first = claim(NOW, 64)
        assert len(first) == PER_HOST
        assert set(Counter(forward.endpoint.id for forward in first).values()) == {2, 3}
        for forward in first[:2]:
            note(forward, NOW)
        assert len(claim(NOW, 64)) == 2

    def test_an_endpoint_that_has_failed_for_a_minute_gets_one_place(self):
        (app,) = make_apps(APP)
        make_forwards(app, [(f"t{n}", 1) for n in range(20)])
        first = claim(NOW, 64)
        for forward in first:
            note(forward, NOW, "HTTP 500", next_attempt_at=NOW + HOUR)
        assert len(claim(NOW + MINUTE - SECOND, 3)) == 3
        assert claim(NOW + MINUTE, 64) == []  # more than one is in flight yet
        assert len(claim(NOW + 3 * MINUTE, 64)) == 1
        assert claim(NOW + 3 * MINUTE, 64) == []

    def test_those_that_fail_come_last_when_room_is_scarce(self):
        failing, well = make_apps(APP, "https://other.example.com")
        make_forwards(failing, [(f"t{n}", 1) for n in range(9)])
        note(claim(NOW, 1)[0], NOW, "HTTP 500")
        make_forward(well, "t1")
        assert [forward.endpoint.id for forward in claim(NOW, 1)] == [well.id]

    def test_hosts_take_turns_when_room_is_scarce(self):
        apps = make_apps(*(f"https://app{n}.example.com" for n in range(6)))
        for app in apps:
            make_forwards(app, [(f"t{n}", 1) for n in range(9)])
        claimed = [forward.endpoint.id for _ in range(3) for forward in claim(NOW, 4)]
        assert set(Counter(claimed).values()) == {2}

    @pytest.mark.parametrize("database_url", ["postgresql", "pooler"], indirect=True)  # SQLite has one writer
    def test_two_processes_cannot_give_away_the_same_place(self, ledger):
        (app,) = make_apps(APP)
        make_forwards(app, [(f"t{n}", 1) for n in range(40)])
        claimed, at_once = [], threading.Barrier(4)

        def work():
            at_once.wait()
            claimed.extend(claim(NOW, 64))
            database.close()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(claimed) == len({forward.id for forward in claimed}) == PER_HOST

    def test_a_lease_from_the_future_takes_no_place(self):
        (app,) = make_apps(APP)
        make_forwards(app, [(f"t{n}", 1) for n in range(20)])
        assert len(claim(NOW + 365 * DAY, 64)) == PER_HOST
        assert len(claim(NOW, 64)) == PER_HOST


class TestChains:
    def test_each_place_gets_a_chain_with_a_lease_of_its_own(self):
        (app,) = make_apps(APP)
        make_forwards(app, [(f"t{n}", 1) for n in range(50)])
        claimed = claim(NOW, 64, length=4)
        assert Counter(Counter(one.leased_until for one in claimed).values()) == {4: PER_HOST}
        assert {found(one.id).leased_until for one in claimed} == {one.leased_until for one in claimed}
        assert claim(NOW, 64, length=4) == []
        assert len(claim(NOW + LEASE + SECOND, 64, length=4)) == 4 * PER_HOST  # who had them has died

    def test_a_few_forwards_are_sent_at_once_and_not_one_after_another(self):
        (app,) = make_apps(APP)
        make_forwards(app, [(f"t{n}", 1) for n in range(PER_HOST)])
        claimed = claim(NOW, 64, length=16)
        assert len({one.leased_until for one in claimed}) == len(claimed) == PER_HOST

    def test_its_place_is_free_when_all_of_it_is_noted(self):
        (app,) = make_apps(APP)
        make_forwards(app, [(f"t{n}", 1) for n in range(50)])
        claimed = claim(NOW, 64, length=4)
        first, *others = [one for one in claimed if one.leased_until == claimed[0].leased_until]
        for one in others:
            note(one, NOW)
        assert claim(NOW, 64, length=4) == []
        note(first, NOW)
        assert len(claim(NOW, 64, length=4)) == 4

    def test_claims_at_the_same_moment_share_the_places(self):
        (app,) = make_apps(APP)
        make_forwards(app, [(f"t{n}", 1) for n in range(50)])
        sizes = [len(claim(NOW, room, length=2)) for room in (3, 3, 64, 64)]
        assert sizes == [6, 6, 4, 0]

    def test_events_of_one_task_are_in_no_two_chains_at_once_and_not_in_the_same(self):
        (app,) = make_apps(APP)
        make_forwards(app, [(f"t{n}", sequence) for n in range(5) for sequence in (1, 2, 3)])
        claimed = claim(NOW, 64, length=16)
        assert [(one.task_id, one.sequence) for one in claimed] == [(f"t{n}", 1) for n in range(5)]

    def test_what_it_leaves_unsent_keeps_its_place_in_the_backlog(self):
        (app,) = make_apps(APP)
        old = make_forwards(app, [(f"old{n}", 1) for n in range(8)], at=NOW - HOUR)
        make_forwards(app, [(f"new{n}", 1) for n in range(20)], at=NOW - MINUTE)
        claimed = claim(NOW, 1, length=8)
        assert ids(claimed) == old
        note(claimed[0], NOW)
        release(claimed[1:], NOW)
        assert ids(claim(NOW, 1, length=8))[:7] == old[1:]

    def test_successes_of_many_are_noted_together_with_failures(self):
        (app,) = make_apps(APP)
        make_forwards(app, [(f"t{n}", 1) for n in range(40)])
        claimed = claim(NOW, 64, length=4)
        began = [NOW + n * SECOND for n in range(len(claimed))]
        outcomes = ["HTTP 500" if n % 5 == 0 else None for n in range(len(claimed))]
        forwards.note([attempted(*one) for one in zip(claimed, began, outcomes, strict=True)], NOW + MINUTE)
        for one, at, cause in zip(claimed, began, outcomes, strict=True):
            now = found(one.id)
            assert (now.attempts, now.counted, now.began_at, now.cause) == (1, 1, at, cause)
            assert (now.status, now.leased_until) == ("pending" if cause else "delivered", None)
            assert now.ended_at == (None if cause else NOW + MINUTE)


class TestBacklog:
    def test_it_goes_out_oldest_first_with_a_share_for_what_is_new(self):
        (app,) = make_apps(APP)
        numbers = make_forwards(app, [(f"t{n}", 1) for n in range(100)])
        newest = numbers[::-1]
        assert ids(claim(NOW, 64)) == [numbers[0], newest[0], *numbers[1:4], newest[1], *numbers[4:6]]

    def test_one_chain_in_four_is_of_what_is_new_also_where_one_place_is_free(self):
        (app,) = make_apps(APP)
        numbers = make_forwards(app, [(f"t{n}", 1) for n in range(100)])
        claimed = [ids(claim(NOW, 1, 2, begun={app.id: begun})) for begun in range(8)]
        old, newest = numbers[:12], numbers[:-5:-1]
        assert (claimed[1], claimed[5]) == (newest[:2], newest[2:])
        assert [number for turn in (0, 2, 3, 4, 6, 7) for number in claimed[turn]] == old

    def test_what_is_both_old_and_new_goes_out_once(self):
        (app,) = make_apps(APP)
        numbers = make_forwards(app, [(f"t{n}", 1) for n in range(9)])
        assert ids(claim(NOW, 64)) == [numbers[0], numbers[8], *numbers[1:4], numbers[7], *numbers[4:6]]

    def test_where_nothing_is_new_the_backlog_has_all_places(self):
        (app,) = make_apps(APP)
        numbers = make_forwards(app, [(f"t{n}", 1) for n in range(20)], attempts=1)
        assert ids(claim(NOW, 64)) == numbers[:PER_HOST]

    def test_what_was_tried_before_goes_first_after_an_outage_if_it_is_older(self):
        (app,) = make_apps(APP)
        tried = make_forward(app, "t1")
        (claimed,) = claim(NOW, 10)
        note(claimed, NOW, "HTTP 500", next_attempt_at=NOW + 10 * HOUR)
        others = make_forwards(app, [(f"u{n}", 1) for n in range(3)], at=NOW + HOUR)
        (claimed,) = claim(NOW + HOUR, 10)
        note(claimed, NOW + HOUR)  # it works again
        assert ids(claim(NOW + HOUR, 64)) == [tried, *others[1:]]

    def test_a_retry_comes_at_its_time(self):
        (app,) = make_apps(APP)
        number = make_forward(app, "t1")
        note(claim(NOW, 10)[0], NOW, "HTTP 500", next_attempt_at=NOW + 5 * SECOND)
        assert not is_anything_to_do(NOW + 4 * SECOND, READER)
        assert claim(NOW + 4 * SECOND, 10) == []
        assert ids(claim(NOW + 5 * SECOND, 10)) == [number]


class TestHeld:
    def test_nothing_is_done_each_second_while_an_endpoint_is_held(self):
        (app,) = make_apps(APP)
        make_forwards(app, [(f"t{n}", 1) for n in range(20)])
        hold(app.id, "failing", NOW)
        assert not is_anything_to_do(NOW + HOUR - SECOND, READER)
        assert is_anything_to_do(NOW + HOUR, READER)

    def test_a_probe_comes_even_if_every_retry_is_hours_ahead(self):
        (app,) = make_apps(APP)
        number = make_forward(app, "t1", next_attempt_at=NOW + 10 * HOUR, attempts=9)
        hold(app.id, "failing", NOW)
        assert claim(NOW + HOUR - SECOND, 10) == []
        assert is_anything_to_do(NOW + HOUR, READER)
        assert ids(claim(NOW + HOUR, 10)) == [number]
        assert claim(NOW + HOUR, 10) == []

    def test_a_probe_that_found_no_room_comes_next_time(self):
        held, open_ = make_apps(APP, "https://other.example.com")
        make_forward(held, "t1")
        make_forwards(open_, [(f"t{n}", 1) for n in range(9)])
        hold(held.id, "failing", NOW)
        Endpoint.update(failing_since=NOW).where(Endpoint.id == held.id).execute()
        assert [forward.endpoint.id for forward in claim(NOW + HOUR, 1)] == [open_.id]
        assert held.id in [forward.endpoint.id for forward in claim(NOW + HOUR, 64)]

    def test_one_probe_an_hour_is_one_attempt(self):
        (app,) = make_apps(APP)
        make_forwards(app, [(f"t{n}", 1) for n in range(20)])
        hold(app.id, "gone", NOW)
        probes = [
            (NOW + n * MINUTE, one)
            for n in range(180)
            for one in claim(NOW + n * MINUTE, 64)
            if n % 7 == 0 or one
        ]
        assert [at for at, _ in probes] == [NOW + HOUR, NOW + 2 * HOUR]

    def test_no_probe_of_what_a_person_holds(self):
        (app,) = make_apps(APP)
        make_forward(app, "t1")
        endpoints.pause(app.id, NOW)
        assert not is_anything_to_do(NOW + 30 * DAY, READER)
        assert claim(NOW + 30 * DAY, 10) == []

    @pytest.mark.parametrize("because", ["person", "failing"])
    def test_what_a_person_sends_again_goes_out_once(self, because):
        (app,) = make_apps(APP)
        first = make_forward(app, "t1", status="failed", next_attempt_at=None)
        make_forward(app, "t2")
        hold(app.id, because, NOW)
        again = make_forward(app, "t1", resends=first, pushed=True)
        assert is_anything_to_do(NOW, READER)
        (claimed,) = claim(NOW, 10)
        assert (claimed.id, claimed.message_id) == (again, Forward.get_by_id(first).message_id)
        assert not is_anything_to_do(NOW, READER)
        note(claimed, NOW, "HTTP 500")
        assert claim(NOW + 2 * MINUTE, 10) == []

    def test_nothing_goes_to_an_endpoint_that_is_no_longer_configured(self):
        (app,) = make_apps(APP)
        number = make_forward(app, "t1")
        make_apps("https://other.example.com")
        assert not is_anything_to_do(NOW, READER)
        assert claim(NOW, 10) == []
        make_apps(APP)
        assert ids(claim(NOW, 10)) == [number]


def plans(statements):
    explain = "EXPLAIN (ANALYZE)" if on_postgresql() else "EXPLAIN QUERY PLAN"
    with database.connection_context():
        for sql, parameters in statements:
            if sql.startswith("SELECT"):
                rows = database.execute_sql(f"{explain} {sql}", parameters)
                yield "\n".join(str(row) for row in rows)


@pytest.mark.direct
def test_a_backlog_costs_a_claim_nothing(monkeypatch):
    one, held = make_apps(APP, "https://other.example.com")
    # What an outage has kept, and beside it what was delivered.
    for app, status in ((one, "pending"), (held, "pending"), (one, "delivered")):
        make_forwards(app, [(f"{status}{n}", 1) for n in range(10_000)], status=status)
    hold(held.id, "failing", NOW)
    if on_postgresql():  # SQLite chooses without statistics
        with database.connection_context():
            database.execute_sql("ANALYZE")
    statements = []
    execute = database.obj.execute_sql

    def watched(sql, params=None):
        statements.append((sql, params))
        return execute(sql, params)

    with monkeypatch.context() as patched:
        patched.setattr(database.obj, "execute_sql", watched)
        assert len(claim(NOW, 64)) == PER_HOST
        assert is_anything_to_do(NOW, READER)
        assert len(claim(NOW + HOUR, 64)) == PER_HOST + 1
    for plan in plans(statements):
        assert not re.search(r"Seq Scan on forward|rows=\d{3,}\.|Removed by Filter: \d{2,}", plan), plan
        assert not re.search(r"forward_status|SCAN t\d USING|B-TREE FOR ORDER BY", plan), plan
