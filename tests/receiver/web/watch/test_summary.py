"""The overview's first sentence, by what is the case."""

from datetime import datetime, timedelta

import pytest

from receiver.ledger import refusals
from receiver.ledger.models import Endpoint, Pause, ReconcileRun, Submission
from receiver.ledger.reading.endpoints import ForwardFacts, Share
from receiver.ledger.reading.tally import Outcomes
from receiver.ledger.refusals import Refused
from receiver.ledger.unclear import Unclear
from receiver.web.formatting import exact, span
from receiver.web.watch.summary import START_RECONCILER, Facts, hindrance, next_run, summarise
from receiver.web.writes import Writes

NOW = datetime(2026, 1, 31, 12, 0, 0)
INTERVAL = timedelta(seconds=15)


def run(ago=5, took=1, **fields):
    started_at = NOW - timedelta(seconds=ago)
    finished_at = None if took is None else started_at + timedelta(seconds=took)
    counts = dict.fromkeys(("due", "asked", "settled", "running", "absent", "calls", "errors"), 0)
    return ReconcileRun(started_at=started_at, finished_at=finished_at, **counts | fields)


def facts(**fields):
    known = {"newest_at": NOW - timedelta(hours=1), "last_run": run(), "reconciler_seen_at": NOW - INTERVAL}
    return Facts(now=NOW, interval=INTERVAL, **known | fields)


def told(**fields):
    """Return the first of the summaries that the facts come to: its severity and its words."""
    summary = summarise(facts(**fields))[0]
    return summary.severity, f"{summary.label}: {summary.text}"


def queries(summary):
    return [one.query for one in summary.listed]


def day(**outcomes):
    return Outcomes(tasks=1204, succeeded=1200, failed=4, **outcomes)


def test_all_is_well():
    assert told(last_day=day()) == (
        "well",
        "All is well: all 1,204 tasks of the last 24 h are settled. No callback was lost.",
    )
    assert told(last_day=Outcomes(tasks=1, succeeded=1))[1].startswith(
        "All is well: the one task of the last 24 h is settled."
    )


@pytest.mark.parametrize(
    ("missed", "slowest", "words"),
    [
        (1, timedelta(seconds=42), "1 callback never came; it was recovered after 42 s."),
        (
            31,
            timedelta(seconds=252),
            "31 callbacks never came; all were recovered, the slowest after 4 min 12 s.",
        ),
        (31, None, "31 callbacks never came; all were recovered."),
    ],
)
def test_it_tells_of_callbacks_that_never_came(missed, slowest, words):
    text = told(last_day=day(missed=missed), slowest_recovery=slowest)[1]
    assert text == f"All is well: all 1,204 tasks of the last 24 h are settled. {words}"


def test_it_does_not_speak_of_the_last_day_when_nothing_came():
    assert told() == ("well", "All is well: every task is settled, and the last 24 h brought no new one.")


def test_tasks_that_wait_are_no_cause_for_alarm():
    oldest = NOW - timedelta(minutes=4)
    assert told(pending=12, oldest_pending_at=oldest, last_day=day(missed=3)) == (
        "busy",
        "At work: 12 tasks are waiting for a result, the oldest for 4 min; 1,204 of the last 24 h are settled."
        " 3 callbacks never came; all were recovered.",
    )


def test_tasks_given_up_and_disputed_ask_for_attention_and_are_linked():
    given_up, disputed = summarise(facts(given_up=2, disputed=1, pending=1))
    assert (given_up.severity, queries(given_up)) == ("attention", ["status=expired"])
    assert given_up.text == "2 tasks were given up in the last 24 h: upstream gave no final answer."
    assert (disputed.severity, queries(disputed)) == ("attention", ["disputed=true&acknowledged=false"])
    assert disputed.text.startswith(
        "1 task of the last 24 h is disputed: the Tasks API contradicts a callback, and its word counts,"
    )


def test_disputes_that_were_acknowledged_leave_the_overview_green():
    assert told(last_day=day(disputed=5), disputed=0)[0] == "well"


def test_it_counts_disputes_up_to_a_bound():
    assert "10,000 or more tasks of the last 24 h are disputed" in told(disputed=10_000)[1]


ACCOUNT = Pause(account=True, reason="upstream answered 401", started_at=NOW - timedelta(minutes=5))
THROTTLE = Pause(account=False, reason="upstream answered 429", started_at=NOW, ended_at=NOW)


@pytest.mark.parametrize("pause", [ACCOUNT, THROTTLE])
def test_a_paused_account_is_the_cause_of_calls_that_fail_and_is_told_once(pause):
    runs = failing(300, 200, 100)
    (summary,) = summarise(facts(failing_runs=runs, last_asking_run=runs[-1], pause=pause, pending=3))
    assert "see whether Ace Data Cloud is up" not in summary.text
    assert pause.reason in summary.text


def test_what_a_missing_reconciler_left_behind_is_told_without_its_consequences():
    runs = failing(300, 200, 100)
    known = {"failing_runs": runs, "last_asking_run": runs[-1], "pending": 3}
    away = {"reconciler_seen_at": NOW - timedelta(minutes=3)}
    (summary,) = summarise(facts(**known, **away))
    assert "the reconciler has not run" in summary.text
    (summary,) = summarise(facts(**known, **away, pause=THROTTLE))  # it ends by itself
    first, second = summarise(facts(**known, **away, pause=ACCOUNT))
    assert "the reconciler has not run" in first.text
    assert "ACEDATACLOUD_API_TOKEN" in second.text
    for consequence in ("3 tasks are waiting", "Callbacks are still received"):
        assert [consequence in each.text for each in (first, second)] == [True, False]
    assert "next probe" not in second.text  # nobody probes


def test_a_token_of_another_account_is_told_as_the_one_cause_of_what_comes_of_it():
    (summary,) = summarise(facts(knows_none=True, disputed=1073, given_up=2, pending=1))
    assert summary.severity == "attention"
    assert queries(summary) == ["disputed=true&acknowledged=false", "status=expired", "status=pending"]
    assert summary.text.startswith(
        "upstream knew none of the tasks that Backstop asked about lately."
        " Most likely ACEDATACLOUD_API_TOKEN belongs to another account"
    )
    assert "1,073 tasks of the last 24 h are disputed. 2 tasks were given up." in summary.text
    assert summary.text.index("another account") < summary.text.index("forged")
    (summary,) = summarise(facts(knows_none=True, pending=1))
    assert (queries(summary), "forged" in summary.text) == (["status=pending"], False)
    assert told(knows_none=True)[0] == "well"
    (summary,) = summarise(facts(knows_none=True, pending=1, pause=ACCOUNT))  # the token is told of already
    assert "upstream has refused look-ups" in summary.text
    (summary,) = summarise(facts(knows_none=True, pending=1, reconciler_seen_at=NOW - timedelta(hours=1)))
    assert "the reconciler has not run" in summary.text


def test_the_worst_comes_first_and_nothing_is_left_out():
    away = NOW - timedelta(hours=2)
    told = summarise(facts(reconciler_seen_at=away, pause=ACCOUNT, spooled=3, given_up=1, pending=1))
    assert [summary.severity for summary in told] == [*["trouble"] * 2, *["attention"] * 2]
    runs = failing(600, 300, 5)
    told = summarise(facts(spooled=3, failing_runs=runs, last_asking_run=runs[-1], pending=1))
    assert [summary.severity for summary in told] == ["trouble", "attention"]


def test_notices_of_one_severity_stand_in_the_order_of_what_they_cost():
    refused = {kind: Refused(kind, 1, NOW, NOW) for kind in refusals.KINDS}
    told = summarise(
        facts(
            refused=refused, spooled=3, disputed=1, given_up=1, clock_ahead=timedelta(days=2), pause=ACCOUNT
        )
    )
    assert [one.code for one in told] == [
        *("unknown_refused", "clock_wrong", "upstream_refuses"),
        *("callbacks_lost", "spool_waiting", "wrong_token", "no_route", "callbacks_shortened"),
        *("unknown_service", "tasks_given_up", "disputes", "keys_guessed"),
    ]


def test_a_spool_that_is_not_empty_asks_for_attention():
    severity, text = told(spooled=1)
    assert severity == "attention"
    assert "1 delivery in the spool is not in the database yet." in text
    assert "SPOOL_DIR" in told(spooled=None)[1]


def test_a_database_that_takes_no_writes_is_told_without_what_follows_from_it():
    ago = timedelta(minutes=5)
    for spool in (None, "No space"):
        writes = Writes("disk is full", spool, NOW - ago, NOW if spool else None)
        (one,) = summarise(facts(writes=writes, spooled=3, reconciler_seen_at=NOW - ago))
        assert one.code == ("callbacks_refused" if spool else "database_down")
    first, second = summarise(facts(writes=writes, reconciler_seen_at=NOW - 3 * ago))
    assert (first.code, second.code) == ("callbacks_refused", "reconciler_silent")


def test_a_reconciler_that_never_ran_is_trouble():
    summary = summarise(facts(last_run=None, reconciler_seen_at=None))[0]
    assert (summary.severity, summary.command) == ("trouble", START_RECONCILER)
    assert "the reconciler has never run" in summary.text


@pytest.mark.parametrize(
    "known",
    [
        {"last_run": None, "reconciler_seen_at": None},
        {"reconciler_seen_at": NOW - timedelta(hours=2)},
        {"reconciler_seen_at": NOW + timedelta(hours=2)},
        {"pause": Pause(account=True, reason="no balance", started_at=NOW)},
    ],
)
def test_nothing_says_that_callbacks_are_taken_in_while_they_are_refused(known):
    well = summarise(facts(**known))
    assert any("received" in one.text for one in well)
    since = {"since": NOW, "spool_since": NOW}
    refused = summarise(facts(**known, writes=Writes("disk is full", "No space", **since)))
    assert "callbacks have been refused and lost since 2026-01-31 12:00:00 UTC" in refused[0].text
    assert len(refused) == len(well) + 1
    assert not any("received" in one.text for one in refused)


def test_an_empty_ledger_is_no_trouble_yet():
    assert told(newest_at=None, last_run=None, reconciler_seen_at=None)[0] == "attention"
    assert told(newest_at=None)[0] == "well"


def test_a_silent_reconciler_is_trouble():
    seen_at = NOW - timedelta(hours=2)
    summary = summarise(facts(reconciler_seen_at=seen_at, last_run=run(ago=7200)))[0]
    assert (summary.severity, summary.command) == ("trouble", START_RECONCILER)
    assert "the reconciler has not run since 2026-01-31 10:00:00 UTC (2 h ago)" in summary.text


@pytest.mark.parametrize("hours", [0.1, 8])
def test_a_reconciler_that_was_last_seen_in_the_future_is_not_at_work(hours):
    seen_at = NOW + timedelta(hours=hours)
    known = facts(reconciler_seen_at=seen_at, last_run=run(ago=-3600 * hours), pending=3)
    severity, text = told(reconciler_seen_at=seen_at, last_run=run(ago=-3600 * hours), pending=3)
    assert severity == "trouble"
    assert (
        f"the reconciler last ran at {exact(seen_at)}, which is {span(seen_at - NOW)} in the future" in text
    )
    assert "clocks" in text
    assert next_run(known).startswith("Unknown: the reconciler last ran at")
    assert "in the future" in hindrance(known)


def test_one_on_a_machine_whose_clock_is_a_little_ahead_is():
    assert told(reconciler_seen_at=NOW + timedelta(seconds=20), pending=3)[0] == "busy"


def test_a_long_run_that_still_notes_lookups_is_not_silent():
    known = facts(last_run=run(ago=1800, took=None), reconciler_seen_at=NOW - timedelta(seconds=20))
    assert summarise(known)[0].severity == "well"
    assert next_run(known) == "A run is in progress."


def test_upstream_that_may_not_be_asked_is_trouble_and_tells_since_when_and_why():
    since, probe_at = NOW - timedelta(minutes=5), NOW + timedelta(seconds=40)
    reason = "upstream answered 403 used_up: no balance"
    pause = Pause(account=True, reason=reason, started_at=since, next_probe_at=probe_at)
    severity, text = told(pause=pause, pending=3)
    assert severity == "trouble"
    assert f"since 2026-01-31 11:55:00 UTC (5 min ago): “{reason}”" in text
    assert "the next probe comes in 40 s" in text
    assert "3 tasks are waiting" in text
    throttled = Pause(account=False, reason="upstream answered 429", started_at=NOW, ended_at=probe_at)
    assert told(pause=throttled)[0] == "attention"


def test_a_service_that_may_not_be_asked_about_is_named_and_the_others_go_on():
    since, probe_at = NOW - timedelta(minutes=5), NOW + timedelta(seconds=40)
    reason = "upstream answered 403 disabled: not enabled"
    started = {"service": "suno", "started_at": since, "reason": reason}
    severity, text = told(paused_services=[Pause(account=True, next_probe_at=probe_at, **started)])
    assert severity == "trouble"
    assert f"look-ups of suno since 2026-01-31 11:55:00 UTC (5 min ago): “{reason}”" in text
    assert "The next probe comes in 40 s. Other services are asked about all the same." in text
    severity, text = told(paused_services=[Pause(account=False, ended_at=probe_at, **started)])
    assert (severity, "look-ups of suno are paused" in text) == ("attention", True)


def test_while_nobody_is_asked_no_single_service_is_told():
    paused = [Pause(account=True, service="suno", reason="disabled", started_at=NOW)]
    of_all = Pause(account=True, reason="used_up", started_at=NOW)
    assert [one for one in summarise(facts(pause=of_all, paused_services=paused)) if "suno" in one.text] == []


def failing(*agos, calls=2, errors=2):
    return [run(ago=ago, calls=calls, errors=errors, error=f"HTTP 50{n}") for n, ago in enumerate(agos)]


@pytest.mark.parametrize(("pending", "severity"), [(3, "trouble"), (0, "attention")])
def test_look_ups_that_go_on_failing_are_told_since_when_and_with_the_last_error(pending, severity):
    runs = failing(300, 200, 100)
    told_severity, text = told(failing_runs=runs, last_asking_run=runs[-1], pending=pending)
    assert told_severity == severity
    assert "look-ups have failed since 2026-01-31 11:55:00 UTC (5 min ago), the last with “HTTP 502”." in text
    assert ("3 tasks are waiting" in text) == bool(pending)


def test_runs_that_take_long_to_fail_are_told_while_and_after_they_do():
    runs = failing(3000, 2100, 1200)
    runs[-1].finished_at = NOW - timedelta(seconds=1)
    known = {"failing_runs": runs, "last_asking_run": runs[-1], "pending": 3}
    assert told(**known)[0] == "trouble"
    runs[-1].finished_at = NOW - timedelta(minutes=15)
    assert told(**known)[0] == "busy"
    assert told(**known, last_run=run(ago=900, took=None))[0] == "trouble"


def test_when_only_most_of_them_fail_it_asks_for_attention():
    runs = failing(300, 200, 100, calls=4, errors=3)
    severity, text = told(failing_runs=runs, last_asking_run=runs[-1], pending=3)
    assert severity == "attention"
    assert "most look-ups have failed since" in text


@pytest.mark.parametrize("agos", [(300,), (300, 290), (100, 60, 30), (1200, 1000, 700)])
def test_a_failure_that_the_next_look_up_may_mend_is_not_told(agos):
    runs = failing(*agos)
    assert told(failing_runs=runs, last_asking_run=runs[-1], pending=3)[0] == "busy"


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (facts(last_run=None, reconciler_seen_at=None), "The reconciler has never run."),
        (facts(last_run=run(ago=5)), "The next run is due in 10 s."),
        (facts(last_run=run(ago=20)), "The next run is due now."),
        (
            facts(last_run=run(ago=7200, took=None), reconciler_seen_at=NOW - timedelta(hours=2)),
            "Overdue: the reconciler has been silent in the middle of a run since 2026-01-31 10:00:00 UTC.",
        ),
    ],
)
def test_it_tells_when_the_next_run_is_due(known, words):
    assert next_run(known) == words


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (facts(), None),
        (facts(reconciler_seen_at=None), "the reconciler has never run"),
        (
            facts(reconciler_seen_at=NOW - timedelta(hours=2)),
            "the reconciler has not run since 2026-01-31 10:00:00 UTC (2 h ago)",
        ),
        (
            facts(pause=Pause(account=False, reason="upstream answered 429", started_at=NOW)),
            "upstream wants no look-ups for a while",
        ),
        (
            facts(pause=Pause(account=True, reason="no balance", started_at=NOW - timedelta(minutes=5))),
            "upstream has refused look-ups since 2026-01-31 11:55:00 UTC (5 min ago); the next probe is due now",
        ),
    ],
)
def test_it_tells_what_keeps_the_reconciler_from_asking(known, words):
    assert hindrance(known) == words


def test_deliveries_that_the_database_refuses_are_trouble():
    (told,) = summarise(facts(set_aside=2))
    assert told.severity == "trouble"
    assert told.text.startswith("the database refuses the content of 2 deliveries.")


def test_damaged_deliveries_are_trouble_before_what_loses_nothing():
    told = summarise(facts(damaged=1, set_aside=2))
    assert [one.code for one in told] == ["deliveries_damaged", "deliveries_set_aside"]
    assert told[0].severity == "trouble"
    assert "1 file of the spool had damaged records" in told[0].text


class TestForwards:
    """What the overview says of how the customer's app is told."""

    HELD = Endpoint(
        url="https://user:geheim@app.example/hook",
        held_at=NOW - timedelta(hours=30),
        held_because="failing",
    )
    PAUSED = Endpoint(url="https://b.example", held_at=NOW - timedelta(hours=1), held_because="person")

    def app(self, **fields):
        known = {
            "undealt_since": None,
            "share": Share(),
            "waiting": 0,
            "oldest_waiting_at": None,
            "failed": 0,
        }
        return ForwardFacts(**known | {"oldest_failed_at": None, "held": [], "failing": None} | fields)

    def test_an_app_that_is_told_is_no_news(self):
        oldest = NOW - timedelta(minutes=9)
        for forwards in (None, self.app(), self.app(waiting=1, oldest_waiting_at=oldest)):
            (summary,) = summarise(facts(forwards=forwards))
            assert summary.severity == "well"

    def test_events_of_which_no_forward_is_made_are_trouble(self):
        (fresh,) = summarise(facts(forwards=self.app(undealt_since=NOW - timedelta(seconds=50))))
        assert fresh.severity == "well"
        assert told(forwards=self.app(undealt_since=NOW - timedelta(hours=1))) == (
            "trouble",
            "Trouble: your app has been told nothing since 2026-01-31 11:00:00 UTC (1 h ago)."
            " The log of the reconciler says why.",
        )

    def test_a_held_endpoint_is_trouble(self):
        app = self.app(held=[self.HELD], waiting=7, oldest_waiting_at=self.HELD.held_at)
        (summary,) = summarise(facts(forwards=app))
        assert summary.severity == "trouble"
        assert summary.text == (
            "https://***@app.example/hook has failed for days: only one event an hour is tried there, since"
            " 2026-01-30 06:00:00 UTC (30 h ago). 7 events wait for your app. Nothing is given up meanwhile."
            " Mend the app, then resume the endpoint."
        )
        assert [(one.page, one.query) for one in summary.listed] == [("forward_pages.show_list", "")]

    def test_many_held_endpoints_are_one_notice(self):
        (summary,) = summarise(facts(forwards=self.app(held=[self.HELD] * 5)))
        assert summary.text.count("app.example") == 3
        assert "The same with 2 other endpoints." in summary.text

    def test_a_paused_one_needs_attention_and_tells_what_waits_once(self):
        app = self.app(held=[self.PAUSED], waiting=1, oldest_waiting_at=self.PAUSED.held_at)
        assert told(forwards=app) == (
            "attention",
            "Attention: https://b.example is paused by a person since 2026-01-31 11:00:00 UTC (1 h ago):"
            " nothing is sent there. 1 event waits for your app.",
        )
        both = self.app(held=[self.HELD, self.PAUSED], waiting=1, oldest_waiting_at=self.PAUSED.held_at)
        summaries = summarise(facts(forwards=both))
        assert [one.severity for one in summaries] == ["trouble", "attention"]
        assert sum("1 event waits" in one.text for one in summaries) == 1

    def test_events_that_wait_for_long_need_attention(self):
        app = self.app(waiting=10_000, oldest_waiting_at=NOW - timedelta(minutes=12))
        severity, text = told(forwards=app)
        assert severity == "attention"
        assert "10,000 or more events wait for your app, the oldest for 12 min." in text

    def test_an_endpoint_that_fails_for_minutes_needs_attention_though_nothing_waits_for_long(self):
        failing = Endpoint(url="https://app.example/hook", failure="HTTP 500")
        waiting = self.app(waiting=1, oldest_waiting_at=NOW - timedelta(minutes=1), failing=failing)
        failing.failing_since = NOW - timedelta(minutes=1)
        (fresh,) = summarise(facts(forwards=waiting))
        assert fresh.severity == "well"
        failing.failing_since = NOW - timedelta(minutes=2)
        assert told(forwards=waiting) == (
            "attention",
            "Attention: https://app.example/hook has taken no events since 2026-01-31 11:58:00 UTC (2 min ago)"
            " (HTTP 500). 1 event waits for your app, the oldest for 1 min. Failed attempts are repeated by"
            " themselves for 8 days. See what your app answers.",
        )

    def test_an_endpoint_that_fails_is_told_also_while_another_is_held(self):
        failing = Endpoint(
            url="https://b.example", failure="HTTP 500", failing_since=NOW - timedelta(hours=1)
        )
        app = self.app(held=[self.HELD], waiting=7, oldest_waiting_at=self.HELD.held_at, failing=failing)
        summaries = summarise(facts(forwards=app))
        assert [one.severity for one in summaries] == ["trouble", "attention"]
        assert "https://b.example has taken no events" in summaries[1].text
        assert sum("7 events wait" in one.text for one in summaries) == 1

    def test_while_no_reconciler_runs_its_notice_tells_what_waits_for_the_app(self):
        app = self.app(waiting=2, oldest_waiting_at=NOW - timedelta(hours=1))
        (summary,) = summarise(facts(reconciler_seen_at=NOW - timedelta(hours=1), forwards=app))
        assert summary.severity == "trouble"
        assert "2 events wait for your app." in summary.text
        held = self.app(waiting=2, oldest_waiting_at=NOW - timedelta(hours=1), held=[self.HELD])
        summaries = summarise(facts(reconciler_seen_at=NOW - timedelta(hours=1), forwards=held))
        assert len(summaries) == 2
        assert sum("2 events wait" in one.text for one in summaries) == 1

    @pytest.mark.parametrize(
        ("failed", "words"), [(1, "1 event was given up"), (3, "3 events were given up")]
    )
    def test_what_was_given_up_needs_attention_until_somebody_deals_with_it(self, failed, words):
        (summary,) = summarise(facts(forwards=self.app(failed=failed)))
        assert (summary.severity, words in summary.text) == ("attention", True)
        assert [(one.page, one.query) for one in summary.listed] == [
            ("forward_pages.show_list", "status=failed")
        ]


class TestUnclearSubmissions:
    def lost(self, trace_id, ago):
        return Submission(trace_id=trace_id, service="imagined", sent_at=NOW - timedelta(minutes=ago))

    def test_none_is_no_news(self):
        assert told(unclear=Unclear(0, []))[0] == "well"

    def test_one_is_named(self):
        assert told(unclear=Unclear(1, [self.lost("own", 3)])) == (
            "attention",
            "Attention: 1 submission is unclear: upstream's answer was lost 3 min ago. Backstop looks for it and"
            " submits nothing again. The trace id: own (imagined).",
        )

    def test_of_many_the_oldest_are_named(self):
        lost = [self.lost(name, 3) for name in "abc"]
        text = told(unclear=Unclear(1200, lost))[1]
        assert "1,200 submissions are unclear: upstream's answer was lost for the oldest 3 min ago." in text
        assert text.endswith("The trace ids: a (imagined), b (imagined), c (imagined) and 1,197 more.")
