"""The overview's notices on the state of the service: the worst first, each with what to do. Pure."""

from datetime import datetime, timedelta

from receiver.clock import to_iso
from receiver.ledger.models import Pause
from receiver.ledger.reading.standing import FAILING_AFTER, FAILING_AFTER_RUNS, is_silent
from receiver.web.formatting import ahead, counted, exact, lasted, shown, span
from receiver.web.watch import (
    callback_notices,
    disputes,
    forward_notices,
    service_notices,
    submission_notices,
    unusual,
)
from receiver.web.watch.facts import Facts, ListLink, Summary, since
from receiver.web.watch.service_notices import probe_words
from receiver.web.watch.troubles import in_order
from receiver.web.writes import REFUSED

START_RECONCILER = "python -m reconcile"
_NO_LOOKUPS = "lost callbacks are not recovered."
_SILENT_AFTER_INTERVALS = 3
_FAILING_LATELY = timedelta(minutes=10)  # after so long without calls, upstream may be up again


def summarise(facts: Facts) -> list[Summary]:
    """Return the notices: the most important first, then all other problems. Each cause appears once."""
    problems = (
        *callback_notices.notices(facts),
        _reconciler_away(facts),
        _paused(facts),
        *service_notices.notices(facts),
        _failing(facts),
        _knows_none(facts),
        _given_up(facts),
        _disputed(facts),
        submission_notices.unclear(facts),
        *forward_notices.notices(facts),
        *unusual.notices(facts),
    )
    return in_order(problems) or [_nothing_yet(facts) or _at_work(facts) or _well(facts)]


def summarise_without_ledger(facts: Facts) -> list[Summary]:
    """Return the notices on what is known while the ledger cannot be read."""
    return in_order((*callback_notices.notices(facts), *unusual.notices(facts)))


def next_run(facts: Facts) -> str:
    """Return when the next run is due, or since when it is overdue."""
    run = facts.last_run
    if run is None or facts.reconciler_seen_at is None:
        return "The reconciler has never run."
    if facts.silent:
        if facts.seen_in_future:
            return f"Unknown: {_in_future(facts)}."
        broken_off = "" if run.finished_at else " in the middle of a run"
        return f"Overdue: the reconciler has been silent{broken_off} since {exact(facts.reconciler_seen_at)}."
    if run.finished_at is None:
        return "A run is in progress."
    due_at = run.started_at + facts.interval
    soon = due_at - facts.now < timedelta(seconds=2)
    return "The next run is due now." if soon else f"The next run is due {ahead(due_at, facts.now)}."


def hindrance(facts: Facts) -> str | None:
    """Return why the reconciler cannot ask upstream now; None if it can."""
    if facts.reconciler_seen_at is None:
        return "the reconciler has never run"
    if facts.seen_in_future:
        return _in_future(facts)
    if facts.silent:
        return f"the reconciler has not run {since(facts.reconciler_seen_at, facts.now)}"
    if facts.pause is None:
        return None
    if not facts.pause.account:
        return "upstream wants no look-ups for a while"
    of = f" of {facts.pause.service}" if facts.pause.service else ""
    when, probe = since(facts.pause.started_at, facts.now), probe_words(facts.pause, facts)
    return f"upstream has refused look-ups{of} {when}; the next probe {probe}"


def _reconciler_away(facts: Facts) -> Summary | None:
    if facts.reconciler_seen_at is None:
        if facts.newest_at is None:
            text = f"nothing has arrived yet, and the reconciler has never run.{_starting(facts)}"
            return Summary("attention", "Almost ready", text, START_RECONCILER, code="reconciler_never_ran")
        received = "callbacks are received, but " if _still_received(facts) else ""
        text = f"{received}the reconciler has never run: {_NO_LOOKUPS}"
    elif facts.seen_in_future:
        text = f"{_in_future(facts)}. Check that it runs, and that the clocks of all machines are right."
        text += f"{_still_received(facts)} If it does not run, {_NO_LOOKUPS}"
    elif facts.silent and not _silenced(facts):
        text = f"the reconciler has not run {since(facts.reconciler_seen_at, facts.now)}."
        text += f"{_still_received(facts)} Meanwhile {_NO_LOOKUPS}"
    else:
        return None
    text += f"{_waiting(facts)}{forward_notices.untold(facts)}{_starting(facts)}"
    code = "reconciler_never_ran" if facts.reconciler_seen_at is None else "reconciler_silent"
    return Summary("trouble", "Trouble", text, START_RECONCILER, _waiting_links(facts), code)


def _silenced(facts: Facts) -> bool:
    """Tell whether the reconciler may run, but cannot write that it does: the database takes no writes."""
    began = facts.writes.since
    return began is not None and not is_silent(facts.reconciler_seen_at, facts.interval, began)


def _still_received(facts: Facts) -> str:
    return "" if facts.writes.callbacks == REFUSED else " Callbacks are still received."


def _in_future(facts: Facts) -> str:
    seen_at = facts.reconciler_seen_at or facts.now
    return f"the reconciler last ran at {exact(seen_at)}, which is {span(seen_at - facts.now)} in the future"


def _starting(facts: Facts) -> str:
    if facts.may_ask:
        return " Start it with"
    return " It needs ACEDATACLOUD_API_TOKEN, which is not set. Set it, and start the reconciler with"


def _paused(facts: Facts) -> Summary | None:
    pause = facts.pause
    if pause is None:
        return None
    why = f"“{shown(pause.reason).rstrip('.')}”"
    if facts.reconciler_away:
        return _paused_while_away(pause, why)
    if not pause.account:
        text = f"upstream wants no look-ups for a while: {why}. They resume by themselves.{_waiting(facts)}"
        return Summary(
            "attention", "Attention", text, listed=_waiting_links(facts), code="upstream_throttles"
        )
    advice = (
        f"Fix the account or the token (ACEDATACLOUD_API_TOKEN); the next probe {probe_words(pause, facts)}."
    )
    text = f"upstream has refused look-ups {since(pause.started_at, facts.now)}: {why}. {advice}"
    text = f"{text}{_still_received(facts)}{_waiting(facts)}"
    return Summary("trouble", "Trouble", text, listed=_waiting_links(facts), code="upstream_refuses")


def _paused_while_away(pause: Pause, why: str) -> Summary | None:
    # The notice on the missing reconciler tells what waits. A pause that ends by itself does not matter then.
    if not pause.account:
        return None
    text = (
        f"upstream refused look-ups when the reconciler last asked: {why}."
        " Fix the account or the token (ACEDATACLOUD_API_TOKEN) too."
    )
    return Summary("trouble", "Trouble", text, code="upstream_refuses")


def _failing(facts: Facts) -> Summary | None:
    failing, run = facts.failing_runs, facts.last_asking_run
    if facts.reconciler_away or facts.pause is not None:
        return None  # another notice tells why nobody asks
    if run is None or len(failing) < FAILING_AFTER_RUNS:
        return None
    lately = max(_FAILING_LATELY, facts.interval * _SILENT_AFTER_INTERVALS)
    # A run in progress may take long. Until it ends, the last failure still counts.
    in_progress = facts.last_run is not None and facts.last_run.finished_at is None
    is_old = not in_progress and facts.now - (run.finished_at or run.started_at) > lately
    if facts.now - failing[0].started_at < FAILING_AFTER or is_old:
        return None
    when, why = since(failing[0].started_at, facts.now), f"“{shown(run.error).rstrip('.')}”"
    advice = "Look-ups are retried by themselves. If this goes on, check whether Ace Data Cloud is up."
    if run.errors < run.calls:
        text = f"most look-ups have failed {when}, the last with {why}. {advice}"
        return Summary("attention", "Attention", text, code="upstream_failing")
    severity, label = ("trouble", "Trouble") if facts.pending else ("attention", "Attention")
    text = f"look-ups have failed {when}, the last with {why}. {advice}{_still_received(facts)}"
    text = f"{text}{_waiting(facts)}"
    return Summary(severity, label, text, listed=_waiting_links(facts), code="upstream_failing")


def _knows_none(facts: Facts) -> Summary | None:
    # While nobody asks, the notice on that explains why tasks wait.
    waiting = facts.pending if not facts.reconciler_away and facts.pause is None else 0
    if not facts.knows_none or not (facts.disputed or facts.given_up or waiting):
        return None
    text = disputes.wrong_account(facts.disputed, facts.given_up)
    if waiting:
        text += _waiting(facts)
    listed = (*_disputed_links(facts), *_given_up_links(facts), *(_waiting_links(facts) if waiting else ()))
    return Summary("attention", "Attention", text, listed=listed, code="upstream_knows_none")


def _given_up(facts: Facts) -> Summary | None:
    if not facts.given_up or facts.knows_none:
        return None
    were = "was" if facts.given_up == 1 else "were"
    text = (
        f"{counted(facts.given_up, 'task')} {were} given up in the last 24 h: upstream gave no final answer."
    )
    return Summary("attention", "Attention", text, listed=_given_up_links(facts), code="tasks_given_up")


def _disputed(facts: Facts) -> Summary | None:
    if not facts.disputed or facts.knows_none:
        return None
    text = disputes.unacknowledged(facts.disputed)
    return Summary("attention", "Attention", text, listed=_disputed_links(facts), code="disputes")


def _disputed_links(facts: Facts) -> tuple[ListLink, ...]:
    query = f"disputed=true&acknowledged=false{_from(facts.last_day_began)}"
    return (ListLink("Show what is disputed", query),) if facts.disputed else ()


def _given_up_links(facts: Facts) -> tuple[ListLink, ...]:
    query = f"status=expired{_from(facts.given_up_known_since)}"
    return (ListLink("Show what was given up", query),) if facts.given_up else ()


def _missed_links(facts: Facts) -> tuple[ListLink, ...]:
    query = f"missed=true{_from(facts.last_day_began)}"
    return (ListLink("Show what was recovered", query),) if facts.last_day.missed else ()


def _from(moment: datetime | None) -> str:
    return f"&since={to_iso(moment)}" if moment else ""


def _nothing_yet(facts: Facts) -> Summary | None:
    if facts.newest_at is not None:
        return None
    return Summary("well", "Ready", "the reconciler runs, and nothing has arrived yet.")


def _at_work(facts: Facts) -> Summary | None:
    if not facts.pending:
        return None
    text = f"{counted(facts.pending, 'task')} {_is_are(facts.pending)} waiting for a result"
    if facts.oldest_pending_at and facts.now - facts.oldest_pending_at >= timedelta(seconds=1):
        text += f", the oldest for {span(facts.now - facts.oldest_pending_at)}"
    if facts.last_day.settled:
        text += f"; {facts.last_day.settled:,} of the last 24 h {_is_are(facts.last_day.settled)} settled"
    listed = (*_waiting_links(facts), *_missed_links(facts))
    return Summary("busy", "At work", f"{text}. {_missed(facts)}".rstrip(), listed=listed)


def _well(facts: Facts) -> Summary:
    settled = facts.last_day.settled
    text = f"all {settled:,} tasks of the last 24 h are settled."
    if settled < 2:
        text = (
            "the one task of the last 24 h is settled."
            if settled
            else "every task is settled, and the last 24 h brought no new one."
        )
    return Summary("well", "All is well", f"{text} {_missed(facts)}".rstrip(), listed=_missed_links(facts))


def _missed(facts: Facts) -> str:
    missed = facts.last_day.missed
    if not missed:
        return "No callback was lost." if facts.last_day.settled else ""
    took = f" after {lasted(facts.slowest_recovery)}" if facts.slowest_recovery is not None else ""
    if missed == 1:
        return f"1 callback never came; it was recovered{took}."
    return f"{missed:,} callbacks never came; all were recovered{', the slowest' if took else ''}{took}."


def _waiting(facts: Facts) -> str:
    if not facts.pending:
        return ""
    return f" {counted(facts.pending, 'task')} {_is_are(facts.pending)} waiting for a result."


def _waiting_links(facts: Facts) -> tuple[ListLink, ...]:
    return (ListLink("Show what waits", "status=pending"),) if facts.pending else ()


def _is_are(count: int) -> str:
    return "is" if count == 1 else "are"
