"""The overview's notices on how the customer's app is told. Pure."""

from datetime import timedelta

from receiver.ledger.models import Endpoint
from receiver.ledger.reading.forwards import MOST_COUNTED
from receiver.redact import mask_credentials
from receiver.web.formatting import counted, shown, span
from receiver.web.watch.facts import Facts, ListLink, Summary, since

# A single time-out is tried again after a minute, and the next failure after five.
_LATE_AFTER = timedelta(minutes=10)
_FAILING_AFTER = timedelta(minutes=2)  # by then a failed event was tried again twice
_UNDEALT_AFTER = timedelta(minutes=1)  # it takes a second
_MOST_NAMED = 3
_WHY = {"gone": "has answered 410 Gone", "failing": "has failed for days"}
_PAGE = "forward_pages.show_list"
_ENDPOINTS = (ListLink("Show the endpoints", "", _PAGE),)


def notices(facts: Facts) -> tuple[Summary | None, ...]:
    """Return what is wrong with telling the app. Each cause appears once."""
    if facts.forwards is None:
        return ()
    return _undealt(facts), _held(facts), _paused(facts), _late(facts), _given_up(facts)


def waiting(facts: Facts) -> str:
    """Return a sentence on what waits for the app; "" where nothing does."""
    count = facts.forwards.waiting if facts.forwards else 0
    return f" {_events(count)} {_wait(count)} for your app." if count else ""


def untold(facts: Facts) -> str:
    """Return a sentence on what the app misses while no reconciler runs; "" where there is nothing."""
    told = waiting(facts)
    if facts.forwards and facts.forwards.undealt_since:
        told += " Your app is told nothing of what happens meanwhile."
    return told


def _undealt(facts: Facts) -> Summary | None:
    began = facts.forwards.undealt_since if facts.forwards else None
    if began is None or facts.now - began < _UNDEALT_AFTER or facts.reconciler_away:
        return None
    text = f"your app has been told nothing {since(began, facts.now)}. The log of the reconciler says why."
    return Summary("trouble", "Trouble", text, code="app_untold")


def _held(facts: Facts) -> Summary | None:
    held = [one for one in _held_endpoints(facts) if one.held_because != "person"]
    if not held:
        return None
    names = ", ".join(f"{_named(one)} {_why(one)}" for one in held[:_MOST_NAMED])
    text = f"{names}: only one event an hour is tried there, {_since(held[0], facts)}.{_more(held)}"
    text += f"{_waiting_unless_told(facts)} Nothing is given up meanwhile."
    text += " Mend the app, then resume the endpoint."
    return Summary("trouble", "Trouble", text, listed=_ENDPOINTS, code="endpoint_held")


def _paused(facts: Facts) -> Summary | None:
    paused = [one for one in _held_endpoints(facts) if one.held_because == "person"]
    if not paused:
        return None
    names = ", ".join(_named(one) for one in paused[:_MOST_NAMED])
    are = "is" if len(paused) == 1 else "are"
    text = (
        f"{names} {are} paused by a person {_since(paused[0], facts)}: nothing is sent there.{_more(paused)}"
    )
    if len(paused) == len(_held_endpoints(facts)):  # else the notice on the held ones tells it
        text += _waiting_unless_told(facts)
    return Summary(
        "attention",
        "Attention",
        text,
        listed=_ENDPOINTS,
        code="endpoint_paused",
    )


def _late(facts: Facts) -> Summary | None:
    # While no reconciler runs, another notice tells why events wait.
    app = facts.forwards
    if app is None or app.oldest_waiting_at is None or facts.reconciler_away:
        return None
    late, failing = facts.now - app.oldest_waiting_at, _fails(facts)
    if not failing and (app.held or late < _LATE_AFTER):
        return None
    waiting = f" {_events(app.waiting)} {_wait(app.waiting)} for your app, the oldest for {span(late)}."
    # If an endpoint is held, its notice tells what waits.
    text = f"{failing}{'' if app.held else waiting}".strip()
    text += " Failed attempts are repeated by themselves for 8 days. See what your app answers."
    return Summary("attention", "Attention", text, listed=_ENDPOINTS, code="forwards_late")


def _fails(facts: Facts) -> str:
    """Return a sentence on the endpoint that fails for longest; "" if none does for long."""
    one = facts.forwards.failing if facts.forwards else None
    if one is None or one.failing_since is None or facts.now - one.failing_since < _FAILING_AFTER:
        return ""
    return (
        f"{_named(one)} has taken no events {since(one.failing_since, facts.now)} ({shown(one.failure, 60)})."
    )


def _given_up(facts: Facts) -> Summary | None:
    count = facts.forwards.failed if facts.forwards else 0
    if not count:
        return None
    were = "was" if count == 1 else "were"
    text = (
        f"{_events(count)} {were} given up: your app did not take {'it' if count == 1 else 'them'}."
        f" Send {'it' if count == 1 else 'them'} again or dismiss {'it' if count == 1 else 'them'}."
    )
    listed = (ListLink("Show what was given up", "status=failed", _PAGE),)
    return Summary("attention", "Attention", text, listed=listed, code="forwards_given_up")


def _waiting_unless_told(facts: Facts) -> str:
    # The notice on a missing reconciler tells what waits.
    return "" if facts.reconciler_away else waiting(facts)


def _held_endpoints(facts: Facts) -> list[Endpoint]:
    return facts.forwards.held if facts.forwards else []


def _why(endpoint: Endpoint) -> str:
    return _WHY.get(endpoint.held_because or "", "is held")


def _named(endpoint: Endpoint) -> str:
    return shown(mask_credentials(endpoint.url), 100)


def _more(endpoints: list[Endpoint]) -> str:
    more = len(endpoints) - _MOST_NAMED
    return f" The same with {counted(more, 'other endpoint')}." if more > 0 else ""


def _since(endpoint: Endpoint, facts: Facts) -> str:
    return since(endpoint.held_at or facts.now, facts.now)


def _events(count: int) -> str:
    return f"{count:,} or more events" if count >= MOST_COUNTED else counted(count, "event")


def _wait(count: int) -> str:
    return "waits" if count == 1 else "wait"
