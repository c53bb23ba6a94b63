"""Discovery against a real server and a real database."""

import json
import threading
from datetime import UTC, timedelta

import pytest

from receiver.clock import from_unix, to_unix, utcnow
from receiver.config import SettingsError
from receiver.ledger import discoveries, pauses
from receiver.ledger.models import Discovery, Lookup, Pause, Task, database
from receiver.ledger.reading import queries
from receiver.upstream import client as upstream_module
from receiver.upstream import services
from receiver.upstream.date import Comparison
from reconcile import discover as discover_module
from tests import callers
from tests.clocks import SetClock
from tests.factories import body, claim, failed_item, finished_item, item, record, register
from tests.processes import Backstop, wait_until
from tests.upstream import Options, StandIn

HERE = "https://backstop.example.com"
HOOK = f"{HERE}/callbacks/callback-token"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture
def make_discoverer(ledger, make_settings, stand_in, stop, clock):
    def make(**variables):
        settings = make_settings(**{"PUBLIC_URL": HERE, "RECONCILE_MAX_RATE": 0} | variables)
        return callers.make_discoverer(settings, stand_in, stop, clock)

    return make


@pytest.fixture
def discoverer(make_discoverer):
    return make_discoverer()


@pytest.fixture
def small_pages(monkeypatch):
    """Pages of 10, and 3 of them in a run."""
    monkeypatch.setattr(discover_module, "PAGE_SIZE", 10)
    monkeypatch.setattr(discover_module, "PAGES_PER_RUN", 3)


@pytest.fixture
def distort(stand_in, monkeypatch):
    """Distorts how the stand-in lists: distort(lambda since, until, offset, limit: (…))."""
    newest = stand_in.records.newest

    def apply(how):
        monkeypatch.setattr(stand_in.records, "newest", lambda matches, *asked: newest(matches, *how(*asked)))

    return apply


def ignoring_filters(since, until, offset, limit):
    return float("-inf"), float("inf"), offset, limit


def ours(made=finished_item, task_id="t1", ago=MINUTE, hook=HOOK, **fields):
    """Return a task object of upstream's that calls back here."""
    record = made(task_id, **fields)
    return record | {"request": {"prompt": "a cat", "callback_url": hook}, "created_at": unix(ago)}


def unix(ago):
    return to_unix(utcnow() - ago)


def plant(stand_in, count, prefix="task", first_ago=MINUTE):
    for n in range(count):
        stand_in.add_record(ours(task_id=f"{prefix}-{n:03}", ago=first_ago + n * timedelta(seconds=1)))


def take_turn(now, look_back):
    return discoveries.take_turn(services.DEFAULT.name, now, now, look_back)


def ids() -> list[str]:
    return sorted(task.id for task in Task.select())


def test_a_page_that_is_too_large_is_asked_for_in_smaller_parts(stand_in, discoverer):
    stand_in.options.change({"most_bytes": 4000})
    plant(stand_in, 30)
    found = discoverer.run_since(utcnow() - 10 * MINUTE, lambda found: None)
    assert (found.adopted, found.finished, found.error) == (30, True, None)


def test_a_final_one_is_settled_at_once_and_never_asked_about(stand_in, discoverer):
    stand_in.add_record(ours(task_id="done", hook=f"{HOOK}/order%207", trace_id="trace-7"))
    stand_in.add_record(
        failed_item("failed") | {"request": {"callback_url": HOOK}, "created_at": unix(MINUTE)}
    )
    found = discoverer.run()
    assert (found.seen, found.ours, found.adopted, found.finished, found.error) == (2, 2, 2, True, None)
    done, failed = queries.find_task("done"), queries.find_task("failed")
    assert (done.status, done.settled_by, done.next_lookup_at, done.confirmed) == (
        "succeeded",
        "lookup",
        None,
        True,
    )
    assert (done.ref, done.type, done.trace_id, done.prompt) == ("order 7", "imagine", "trace-7", "a cat")
    assert json.loads(done.response)["image_url"] == "https://x/1.png"
    assert (done.registered_at, done.finished_at, failed.ref) == (None, from_unix(1720364637.4), None)
    assert abs(done.submitted_at - (utcnow() - MINUTE)) < MINUTE
    assert (failed.status, failed.settled_by, failed.next_lookup_at) == ("failed", "lookup", None)
    assert claim().ids == []
    assert sorted((row.task_id, row.verdict) for row in Lookup.select()) == [
        ("done", "succeeded"),
        ("failed", "failed"),
    ]


def test_a_running_one_is_asked_about_when_its_progress_lets_expect_the_result(stand_in, discoverer):
    stand_in.add_record(ours(item, response={"success": True, "progress": 30}))
    before = utcnow()
    assert discoverer.run().adopted == 1
    task = queries.find_task("t1")
    assert (task.status, task.progress, task.settled_by, task.settled_at) == ("pending", 30, None, None)
    assert timedelta(seconds=140) <= task.next_lookup_at - before < timedelta(seconds=200)


@pytest.mark.parametrize(
    "request_",
    [
        {"callback_url": "https://other.example.com/callbacks/callback-token"},
        {"callback_url": "https://backstop.example.com.evil.com/callbacks/callback-token"},
        {"callback_url": "https://backstop.example.com:8443/callbacks/callback-token"},
        {"callback_url": "https://backstop.example.com/other/callbacks/callback-token"},
        {"callback_url": "https://backstop.example.com/hooks/callback-token"},
        {"callback_url": 7},
        {"callback_url": "https://[/callbacks/x"},
        {},
        [HOOK],
        HOOK,
        None,
    ],
)
def test_it_never_adopts_the_tasks_of_others(stand_in, discoverer, request_):
    stand_in.add_record(finished_item("theirs") | {"request": request_, "created_at": unix(MINUTE)})
    stand_in.add_record(finished_item("none") | {"created_at": unix(MINUTE)})
    found = discoverer.run()
    assert (found.seen, found.ours, found.adopted, ids()) == (2, 0, 0, [])


def test_a_task_with_the_token_of_before_the_rotation_is_ours(stand_in, discoverer):
    stand_in.add_record(ours(hook=f"{HERE}/callbacks/an-older-token/order-7"))
    assert discoverer.run().adopted == 1


def test_what_is_known_stays_untouched(stand_in, discoverer):
    register("registered", ref="mine")
    record(body("called-back"), confirm=True)
    rows = list(Task.select().order_by(Task.id).dicts())
    for task_id in ("registered", "called-back"):
        stand_in.add_record(ours(failed_item, task_id=task_id, hook=f"{HOOK}/theirs"))
    found = discoverer.run()
    assert (found.ours, found.adopted) == (2, 0)
    assert list(Task.select().order_by(Task.id).dicts()) == rows
    assert Lookup.select().count() == 0


def test_no_token_is_stored(ledger, stand_in, discoverer):
    stand_in.add_record(
        ours(
            hook=f"{HERE}/callbacks/callback-token/order-7",
            response={"success": True, "image_url": "https://x/1.png", "callback_url": HOOK, HOOK: [HOOK]},
            made=item,
        )
    )
    discoverer.run()
    with database.connection_context():
        rows = [repr(database.execute_sql(f"SELECT * FROM {name}").fetchall()) for name in ("task", "lookup")]
    assert "callback-token" not in "".join(rows)
    assert "/callbacks/***/order-7" in rows[0]


@pytest.mark.usefixtures("small_pages")
class TestPages:
    def test_it_follows_the_pages_to_where_the_last_discovery_ended(self, stand_in, discoverer):
        plant(stand_in, 15)
        assert (discoverer.run().adopted, Task.select().count()) == (15, 15)
        newest = max(task.submitted_at for task in Task.select())
        row = Discovery.get()
        assert abs(newest - timedelta(minutes=5) - row.covered_to) < timedelta(seconds=0.01)
        assert (row.window_end, row.listed, row.leased_until) == (None, 0, None)
        asked = len(stand_in.calls)
        plant(stand_in, 3, "new", first_ago=timedelta(0))
        found = discoverer.run()
        assert (found.adopted, found.finished) == (3, True)
        assert stand_in.calls[asked].body["created_at_min"] == int(to_unix(row.covered_to))

    def test_pages_are_bounded_and_the_next_run_goes_on(self, stand_in, discoverer, make_discoverer):
        plant(stand_in, 75)
        first = discoverer.run()
        assert (first.pages, first.adopted, first.has_more) == (3, 30, True)
        # What is new goes on top, and what is deleted moves the rest up; neither hides a task.
        plant(stand_in, 25, "new", first_ago=timedelta(0))
        for n in range(8):
            del stand_in.records._planted[f"task-{n:03}"]
        others = [make_discoverer().run() for _ in range(3)]
        assert [found.has_more for found in others] == [True, True, False]
        assert len([task_id for task_id in ids() if task_id.startswith("task")]) == 75
        discoverer.run()
        assert len(ids()) == 100

    def test_upstream_may_ignore_the_filters(self, stand_in, discoverer, distort):
        distort(ignoring_filters)
        plant(stand_in, 25, "old", first_ago=timedelta(days=2))
        plant(stand_in, 45)
        runs = [discoverer.run() for _ in range(3)]
        assert [found.finished for found in runs] == [False, False, True]
        assert ids() == [f"task-{n:03}" for n in range(45)]
        # Once it has been everywhere, the newest pages are enough.
        Discovery.update(covered_to=utcnow() - timedelta(seconds=65)).execute()
        plant(stand_in, 5, "new", first_ago=timedelta(0))
        found = discoverer.run()
        assert (found.pages, found.adopted, found.finished) == (2, 5, True)

    def test_upstream_may_give_fewer_than_it_is_asked_for(self, stand_in, discoverer, distort):
        distort(lambda since, until, offset, limit: (since, until, offset, min(limit, 5)))
        plant(stand_in, 30)
        assert [discoverer.run().finished for _ in range(5)] == [False] * 4 + [True]
        assert len(ids()) == 30

    def test_upstream_that_gives_one_page_again_and_again_is_asked_no_more(
        self, stand_in, discoverer, distort, caplog
    ):
        distort(lambda since, until, offset, limit: (since, until, 0, limit))
        plant(stand_in, 25)
        found = discoverer.run()
        assert (found.pages, found.adopted, found.finished) == (2, 10, False)
        assert discoverer.run_since(utcnow() - timedelta(hours=1), lambda _: None).pages == 2
        assert "the same page again" in found.error
        assert len(caplog.records) == 2
        assert Discovery.get().listed == 10

    def test_an_error_keeps_what_was_found_and_the_next_run_goes_on(self, stand_in, discoverer, caplog):
        plant(stand_in, 45)
        answered, newest = [], stand_in.records.newest
        stand_in.records.newest = lambda *asked: answered.append(1) or newest(*asked)
        wait_for_second = stand_in.lookups._faulty

        def faulty(number, asked):
            stand_in.options.rate_500 = 1.0 if len(answered) == 2 else 0.0
            return wait_for_second(number, asked)

        stand_in.lookups._faulty = faulty
        found = discoverer.run()
        assert (found.pages, found.adopted, found.finished, found.has_more) == (2, 20, False, False)
        assert "500 api_error" in found.error
        assert len(caplog.records) == 1
        assert "\n" not in caplog.records[0].getMessage()
        row = Discovery.get()
        assert (row.listed, row.leased_until) == (20, None)
        answered += [1]
        assert discoverer.run().pages == 3
        assert stand_in.calls[3].body["offset"] == 10
        discoverer.run()
        assert len(ids()) == 45

    def test_a_stop_ends_it_between_pages(self, stand_in, discoverer, stop):
        plant(stand_in, 25)
        found = discoverer.run_since(utcnow() - timedelta(hours=1), lambda _: stop.set())
        assert (found.pages, found.stopped, found.finished) == (1, True, False)
        assert str(found).endswith("10 adopted; stopped before the end")


def test_an_empty_list_leaves_the_beginning_where_it_was(stand_in, discoverer):
    before = utcnow()
    assert discoverer.run().finished
    row = Discovery.get()
    assert abs(row.covered_to - (before - timedelta(days=1))) < MINUTE
    assert (row.window_end, row.finished_at >= before) == (None, True)
    stand_in.add_record(ours(ago=timedelta(hours=20)))
    assert discoverer.run().adopted == 1


def test_the_first_ever_looks_back_as_long_as_a_task_is_waited_for(stand_in, make_discoverer):
    stand_in.add_record(ours(task_id="within", ago=timedelta(seconds=90)))
    stand_in.add_record(ours(task_id="before", ago=timedelta(seconds=110)))
    make_discoverer(RECONCILE_GIVE_UP_AFTER=100).run()
    assert ids() == ["within"]


def test_what_was_deleted_for_its_age_is_not_found_again(stand_in, make_discoverer, clock):
    discoverer = make_discoverer(TASK_RETENTION_DAYS=30)
    stand_in.add_record(ours())
    discoverer.run()
    assert ids() == ["t1"]
    clock.ahead += timedelta(days=31)  # in which nothing new has come
    for model in (Lookup, Task):
        model.delete().execute()
    discoverer.run()
    assert ids() == []
    assert make_discoverer().run().adopted == 1


def test_a_clock_that_is_ahead_passes_over_no_task_as_if_it_had_been_deleted(
    stand_in, make_discoverer, clock
):
    discoverer = make_discoverer(TASK_RETENTION_DAYS=30)
    discoverer.run()
    stand_in.add_record(ours())
    clock.ahead = timedelta(days=31)
    discoverer._caller.upstream._clocks = Comparison(now=clock.now)
    discoverer.run()
    assert ids() == ["t1"]


def test_a_clock_that_is_behind_finds_nothing_again_that_was_deleted_and_keeps_its_place(
    stand_in, make_discoverer, clock
):
    discoverer = make_discoverer(TASK_RETENTION_DAYS=30)
    stand_in.add_record(ours(task_id="deleted", ago=timedelta(days=31)))
    stand_in.add_record(ours(task_id="new"))
    discoverer.run()
    covered_to = Discovery.get().covered_to
    clock.ahead = -timedelta(days=2500)
    discoverer._caller.upstream._clocks = Comparison(now=clock.now)
    discoverer.run()
    assert ids() == ["new"]
    assert Discovery.get().covered_to >= covered_to


def test_odd_items_are_passed_over(stand_in, discoverer):
    good = ours()
    items = [
        None,
        7,
        "x",
        [],
        {},
        {"id": None, "request": {"callback_url": HOOK}},
        ours() | {"id": "x" * 201},
        ours() | {"id": "nul\0"},
        {"id": "undated", "request": {"callback_url": HOOK}},
        ours(task_id="odd-date") | {"created_at": "yesterday"},
        ours(task_id="too-old", ago=timedelta(days=3)),
        ours(item),
        good,
        good,
    ]
    stand_in.respond_next(200, body=json.dumps({"items": items, "count": "many"}).encode())
    found = discoverer.run()
    assert (found.seen, found.ours, found.adopted, found.error) == (14, 3, 3, None)
    assert ids() == ["odd-date", "t1", "undated"]
    assert queries.find_task("t1").status == "succeeded"  # of an item that comes twice, what says most


def test_a_page_of_nothing_but_junk_moves_nothing(stand_in, discoverer):
    stand_in.respond_next(200, body=json.dumps({"items": [None, {}, []]}).encode())
    found = discoverer.run()
    assert (found.seen, found.adopted, found.finished) == (3, 0, True)


class TestClock:
    @pytest.fixture
    def shift(self, clock):
        """Sets our clock wrong: shift(hours)."""
        return lambda hours: setattr(clock, "ahead", timedelta(hours=hours))

    @pytest.mark.parametrize("hours", [-48, -1, -0.1, 0.1, 1, 48])
    def test_one_that_is_wrong_for_a_while_hides_no_task_and_loops_over_none(
        self, stand_in, discoverer, shift, hours
    ):
        plant(stand_in, 3, "before", first_ago=timedelta(minutes=20))
        discoverer.run()
        shift(hours)
        plant(stand_in, 3, "during", first_ago=timedelta(minutes=1))
        discoverer.run()
        shift(0)
        plant(stand_in, 3, "after", first_ago=timedelta(0))
        calls = len(stand_in.calls)
        assert discoverer.run().finished
        assert len(stand_in.calls) - calls <= 2
        assert len(ids()) == 9

    def test_one_that_jumps_back_within_a_run_ends_all_the_same(self, stand_in, discoverer, shift):
        plant(stand_in, 120)
        shift(5)
        ask = discoverer._caller.upstream.list_recent

        def jump(service, **asked):
            shift(-5)
            return ask(service, **asked)

        discoverer._caller.upstream.list_recent = jump
        assert discoverer.run().finished
        assert len(stand_in.calls) == 4
        assert len(ids()) == 120

    def test_a_task_from_the_future_does_not_end_the_search_for_good(self, stand_in, discoverer):
        stand_in.add_record(ours(task_id="future", ago=timedelta(days=-3650)))
        stand_in.add_record(ours(task_id="now"))
        discoverer.run()
        stand_in.add_record(ours(task_id="later", ago=timedelta(0)))
        discoverer.run()
        assert ids() == ["future", "later", "now"]
        assert Discovery.get().covered_to < utcnow()

    @pytest.mark.parametrize("hours", [0.1, 20, 23.9])
    def test_one_that_is_hours_ahead_blinds_it_for_none_of_them(self, stand_in, discoverer, hours):
        plant(stand_in, 120)
        stand_in.add_record(ours(task_id="ahead", ago=timedelta(hours=-hours)))
        assert discoverer.run().finished
        assert len(ids()) == 121
        assert Discovery.get().covered_to <= utcnow()
        plant(stand_in, 3, "new", first_ago=timedelta(0))
        assert discoverer.run().adopted == 3
        assert stand_in.calls[-1].body["created_at_min"] < to_unix(utcnow())

    @pytest.mark.usefixtures("small_pages")
    def test_its_pages_hide_nothing_when_the_next_run_goes_on(self, stand_in, discoverer):
        for n in range(5):
            stand_in.add_record(ours(task_id=f"ahead-{n}", ago=timedelta(hours=-20)))
        plant(stand_in, 70)
        runs = [discoverer.run() for _ in range(4)]
        assert [found.finished for found in runs] == [False, False, False, True]
        assert len(ids()) == 75

    def test_a_clock_that_is_late_hides_nothing_either(self, stand_in, discoverer, shift):
        shift(-5)
        plant(stand_in, 120)
        assert discoverer.run().finished
        assert len(ids()) == 120

    def test_a_row_that_is_ahead_is_mended(self, stand_in, discoverer):
        plant(stand_in, 3)
        discoverer.run()
        ahead = utcnow() + timedelta(hours=20)
        Discovery.update(covered_to=ahead, window_end=ahead, listed=700).execute()
        plant(stand_in, 3, "new", first_ago=timedelta(0))
        assert discoverer.run().adopted == 3
        row = Discovery.get()
        assert (row.covered_to < utcnow(), row.window_end, row.listed) == (True, None, 0)


class TestTurns:
    def test_of_two_at_once_one_asks_and_the_other_leaves_it(self, stand_in, discoverer, make_discoverer):
        plant(stand_in, 3)
        upstream = discoverer._caller.upstream
        ask, is_asking, may_ask = upstream.list_recent, threading.Event(), threading.Event()

        def hold(*args, **question):
            is_asking.set()
            assert may_ask.wait(120)
            return ask(*args, **question)

        upstream.list_recent = hold
        thread = threading.Thread(target=discoverer.run)
        thread.start()
        assert is_asking.wait(120)
        other = make_discoverer().run()
        assert (other.pages, other.error, len(stand_in.calls)) == (0, None, 0)
        may_ask.set()
        thread.join(120)
        assert len(ids()) == 3

    def test_eight_threads_take_one_turn(self, ledger):
        now, barrier, turns = utcnow(), threading.Barrier(8), []

        def take():
            barrier.wait()
            turns.append(take_turn(now, timedelta(days=1)))

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(turn is not None for turn in turns) == 1
        assert Discovery.select().count() == 1

    def test_the_lease_of_one_that_died_lapses(self, ledger):
        now, day = utcnow(), timedelta(days=1)
        assert take_turn(now, day)
        assert take_turn(now + discoveries.LEASE - timedelta(seconds=1), day) is None
        assert take_turn(now + discoveries.LEASE, day)

    def test_a_lease_from_a_clock_that_stood_wrong_keeps_nobody_out(self, ledger):
        assert take_turn(utcnow() + timedelta(days=365), timedelta(days=1))
        assert take_turn(utcnow(), timedelta(days=1))

    def test_progress_renews_the_lease(self, ledger):
        now, day = utcnow(), timedelta(days=1)
        turn = take_turn(now, day)
        assert discoveries.note_progress(turn, now, 50, now + MINUTE)
        assert take_turn(now + discoveries.LEASE, day) is None
        taken = take_turn(now + discoveries.LEASE + MINUTE, day)
        assert (taken.window_end, taken.listed) == (now, 50)

    def test_who_comes_late_changes_nothing(self, ledger):
        now, day = utcnow(), timedelta(days=1)
        late = take_turn(now, day)
        turn = take_turn(now + discoveries.LEASE, day)
        assert not discoveries.note_progress(late, now, 50, now)
        discoveries.finish(late, now, now)
        discoveries.release(late)
        row = Discovery.get()
        assert (row.leased_until, row.listed, row.finished_at) == (turn.leased_until, 0, None)

    def test_what_is_covered_never_shrinks(self, ledger):
        now, covered_to = utcnow(), utcnow() - timedelta(days=1)
        for window_end in (covered_to + MINUTE, None):
            turn = take_turn(now, now - covered_to)
            discoveries.finish(turn, window_end, now)
            assert Discovery.get().covered_to == covered_to

    @pytest.mark.usefixtures("small_pages")
    def test_who_lost_its_turn_asks_no_more(self, stand_in, discoverer):
        plant(stand_in, 25)
        ask = discoverer._caller.upstream.list_recent

        def lose(service, **asked):
            Discovery.update(leased_until=utcnow() + MINUTE).execute()
            return ask(service, **asked)

        discoverer._caller.upstream.list_recent = lose
        assert discoverer.run().pages == 1
        assert Discovery.get().leased_until is not None


class TestPause:
    @pytest.mark.parametrize("error", ["invalid_token", "used_up"])
    def test_an_error_of_the_account_pauses_all(self, stand_in, discoverer, caplog, error):
        stand_in.options.account_error = error
        assert error in discoverer.run().error
        assert (len(caplog.records), pauses.current_pause(utcnow()).account) == (1, True)
        assert "paused" in discoverer.run().error
        assert len(stand_in.calls) == 1

    def test_a_throttle_pauses_all(self, stand_in, discoverer, caplog):
        stand_in.respond_next(429, {"Retry-After": "60"})
        discoverer.run()
        pause = Pause.get()
        assert (pause.account, pause.ended_at - pause.started_at, len(caplog.records)) == (False, MINUTE, 1)
        assert "paused" in discoverer.run().error
        assert "paused" in discoverer.run_since(utcnow() - MINUTE, lambda _: None).error
        assert len(stand_in.calls) == 1

    @pytest.mark.usefixtures("small_pages")
    def test_a_pause_that_begins_meanwhile_is_heeded(self, stand_in, discoverer):
        plant(stand_in, 25)
        found = discoverer.run_since(
            utcnow() - timedelta(hours=1), lambda _: pauses.throttle("x", MINUTE, utcnow())
        )
        assert (found.pages, found.error) == (1, "asking is paused: x")

    def test_it_probes_by_itself_since_with_nothing_due_no_run_would(self, stand_in, discoverer):
        pauses.pause_account("used_up", utcnow() - MINUTE)
        stand_in.options.account_error = "used_up"
        assert "used_up" in discoverer.run().error
        assert len(stand_in.calls) == 1
        stand_in.options.account_error = None
        Pause.update(next_probe_at=utcnow()).execute()
        plant(stand_in, 1)
        assert discoverer.run().adopted == 1
        assert pauses.current_pause(utcnow()) is None


def test_a_call_that_never_ends_is_dropped(stand_in, discoverer, monkeypatch):
    monkeypatch.setattr(upstream_module, "CALL_WITHIN_SECONDS", 0.3)
    stand_in.options.hang_seconds, stand_in.options.rate_hang = 3.0, 1.0
    assert discoverer.run().error == "no answer from upstream within 0.3 s"
    assert Discovery.get().leased_until is None


def test_a_stop_does_not_wait_for_a_call_that_hangs(stand_in, discoverer, stop, monkeypatch):
    monkeypatch.setattr(discover_module, "STOP_WITHIN", timedelta(seconds=0.2))
    stand_in.options.hang_seconds, stand_in.options.rate_hang = 600.0, 1.0
    thread = threading.Thread(target=discoverer.run)
    thread.start()
    wait_until(lambda: stand_in.calls)
    stop.set()
    thread.join(25)  # a call may take 30 s
    assert not thread.is_alive()


def test_it_needs_the_public_url(ledger, make_settings, stand_in, stop):
    with pytest.raises(SettingsError, match="PUBLIC_URL is missing"):
        callers.make_discoverer(make_settings(), stand_in, stop)


def test_looking_back_further_leaves_alone_where_the_next_run_begins(stand_in, discoverer):
    discoverer.run()
    row = Discovery.select().dicts().get()
    stand_in.add_record(ours(ago=timedelta(days=5)))
    stand_in.add_record(ours(task_id="older", ago=timedelta(days=7)))
    pages = []
    found = discoverer.run_since(utcnow() - timedelta(days=6), lambda found: pages.append(found.pages))
    assert (str(found), pages) == ("1 seen, 1 ours, 1 adopted", [1])
    assert Discovery.select().dicts().get() == row


def test_lost_callbacks_of_tasks_that_nobody_registered_end_in_the_truth(ledger, make_settings, stop):
    options = Options(latency=0, lost=1.0, failing=0.3, work=(0.0, 0.5))
    settings = make_settings(PUBLIC_URL=HERE, RECONCILE_GRACE=0, RECONCILE_MAX_RATE=0)
    with StandIn(options) as stand_in:
        mine = [stand_in.submit("imagine", {"prompt": "a", "callback_url": f"{HOOK}/{n}"}) for n in range(70)]
        stand_in.submit(
            "imagine", {"prompt": "theirs", "callback_url": "https://other.example.com/callbacks/x"}
        )
        found = callers.make_discoverer(settings, stand_in, stop).run()
        assert (found.seen, found.adopted) == (71, 70)
        assert stand_in.wait_idle()
        Task.update(next_lookup_at=utcnow()).execute()
        callers.make_reconciler(settings, stand_in, stop).run()
        truth = stand_in.truth()
    tasks = {task.id: task for task in Task.select()}
    assert sorted(tasks) == sorted(mine)
    assert {i: (task.status, json.loads(task.response)) for i, task in tasks.items()} == {
        i: (truth[i]["status"], truth[i]["response"]) for i in mine
    }
    assert [tasks[task_id].ref for task_id in mine] == [str(n) for n in range(70)]


class TestCommand:
    @pytest.fixture
    def backstop(self, ledger, tmp_path, stand_in):
        return Backstop(tmp_path, stand_in.url, DATABASE_URL=ledger, PUBLIC_URL=HERE)

    def test_it_says_what_it_does_and_what_came_of_it(self, backstop, stand_in):
        plant(stand_in, 60, first_ago=timedelta(days=2))
        stand_in.add_record(finished_item("theirs") | {"created_at": unix(MINUTE)})
        ended = backstop.command("reconcile", "--discover", "3d")
        assert (ended.returncode, ended.stdout) == (0, "midjourney: 61 seen, 60 ours, 60 adopted\n")
        told = [line.split(",")[0] for line in ended.stderr.splitlines() if line.startswith("page")]
        assert told == ["page 1", "page 2"]
        moment = (utcnow() - timedelta(days=3)).replace(tzinfo=UTC).isoformat()
        again = backstop.command("reconcile", "--discover", moment)
        assert again.stdout == "midjourney: 61 seen, 60 ours, 0 adopted\n"
        assert Discovery.select().count() == 0

    def test_after_an_error_it_exits_with_1(self, backstop, stand_in):
        stand_in.options.account_error = "used_up"
        ended = backstop.command("reconcile", "--discover", "2h")
        assert (ended.returncode, "used_up" in ended.stdout) == (1, True)

    @pytest.mark.parametrize(
        ("since", "public_url", "code", "said"),
        [
            ("2 weeks", HERE, 2, "'2 weeks' is neither a time like 90m, 2h or 3d nor a moment like"),
            ("2h", "", 1, "PUBLIC_URL is missing"),
        ],
    )
    def test_what_it_cannot_do_it_says(self, backstop, since, public_url, code, said):
        backstop.environ["PUBLIC_URL"] = public_url
        ended = backstop.command("reconcile", "--discover", since)
        assert (ended.returncode, said in ended.stderr, "Traceback" in ended.stderr) == (code, True, False)

    def test_a_signal_stops_it(self, backstop, stand_in):
        stand_in.options.latency = 0.5
        plant(stand_in, 500)
        process = backstop.start("discover", "-m", "reconcile", "--discover", "2h")
        wait_until(lambda: stand_in.calls)
        assert backstop.stop(process) == 0
        assert "stopped before the end" in backstop.log("discover")
        assert "Traceback" not in backstop.log("discover")

    def test_the_reconciler_discovers_by_itself(self, backstop, stand_in):
        plant(stand_in, 3)
        process = backstop.start_reconciler()
        wait_until(lambda: Task.select().count() == 3)
        assert backstop.stop(process) == 0
        assert "Discovery: 3 seen, 3 ours, 3 adopted" in backstop.log("reconcile")
        assert "Traceback" not in backstop.log("reconcile")


@pytest.mark.parametrize("code", ["bad_request", "not_found"])
def test_a_probe_whose_answer_shows_that_the_token_is_accepted_ends_the_pause(stand_in, discoverer, code):
    pauses.pause_account("used_up", utcnow() - timedelta(hours=1))
    status = {"bad_request": 400, "not_found": 404}[code]
    stand_in.respond_next(status, body=json.dumps({"error": {"code": code}}).encode())
    assert code in discoverer.run().error
    assert pauses.current_pause(utcnow()) is None


def test_a_probe_that_meets_an_outage_does_not(stand_in, discoverer):
    pauses.pause_account("used_up", utcnow() - timedelta(hours=1))
    stand_in.respond_next(500)
    discoverer.run()
    assert pauses.current_pause(utcnow()) is not None


def test_an_unexpected_error_of_a_call_ends_no_discovery_with_an_exception(stand_in, discoverer, caplog):
    secret = "-".join(["test", "token"])  # the source's lines are in the log

    def fail(*_, **__):
        raise ValueError(f"Invalid header value {secret}")

    discoverer._caller.upstream.list_recent = fail
    assert discoverer.run().error == "the call ended with an unexpected ValueError"
    assert Discovery.get().leased_until is None
    assert secret not in caplog.text
