"""What the overview says of callbacks that could not be kept as they should be. Pure."""

from receiver.ledger.refusals import NO_ROUTE, NOT_KEPT, SHORTENED, WRONG_TOKEN, Refused
from receiver.web.formatting import ago, counted, shown
from receiver.web.pages.facts import Facts, Summary, since
from receiver.web.writes import REFUSED, SPOOLED

_RECOVERED = "Look-ups still find the results of tasks that were registered or discovered."


def problems(facts: Facts) -> list[Summary | None]:
    """Return what is wrong with the keeping of callbacks, the worst first."""
    return [
        _cannot_be_kept(facts),
        _were_lost(facts),
        _set_aside(facts),
        _spooled(facts),
        _wrong_token(facts),
        _no_route(facts),
        _shortened(facts),
    ]


def _cannot_be_kept(facts: Facts) -> Summary | None:
    writes = facts.writes
    if writes.callbacks == SPOOLED:
        when = since(writes.since or facts.now, facts.now)
        database = f"the database takes no writes {when}: “{shown(writes.database)}”."
        text = f"{database} Callbacks wait in the spool, and nothing is lost while that has room."
        return Summary("trouble", "Trouble", text)
    if writes.callbacks != REFUSED:
        return None
    when = since(writes.refused_since or facts.now, facts.now)
    text = (
        f"callbacks are refused and lost {when}. The database takes no writes: “{shown(writes.database)}”."
        f" Neither does the spool: “{shown(writes.spool)}”. Make room on the disk, or make it writable."
    )
    lost = facts.refused.get(NOT_KEPT)
    return Summary("trouble", "Trouble", f"{text} {_lost(lost)} {_RECOVERED}" if lost else text)


def _were_lost(facts: Facts) -> Summary | None:
    lost = facts.refused.get(NOT_KEPT)
    if lost is None or facts.writes.callbacks == REFUSED:
        return None
    why = f" The reason was “{shown(lost.reason)}”." if lost.reason else ""
    text = f"{_lost(lost)}{why} {_RECOVERED}"
    return Summary("attention", "Attention", f"{text[:1].lower()}{text[1:]}")


def _lost(lost: Refused) -> str:
    callbacks = counted(lost.requests, "callback was", "callbacks were")
    return f"{callbacks} refused and lost {_between(lost)}."


def _between(refused: Refused) -> str:
    first, last = (f"{moment:%Y-%m-%d %H:%M:%S}" for moment in (refused.first_at, refused.last_at))
    return f"at {first} UTC" if first == last else f"from {first} to {last} UTC"


def _spooled(facts: Facts) -> Summary | None:
    refused = facts.writes.callbacks == REFUSED  # with what the spool says
    if not refused and (facts.spooled is None or facts.writes.spool is not None):
        why = f": “{shown(facts.writes.spool)}”" if facts.writes.spool else ""
        text = (
            f"the spool does not work{why}. If the database fails now, callbacks are lost."
            " Make SPOOL_DIR a writable directory on a disk with free space."
        )
        return Summary("attention", "Attention", text)
    if not facts.spooled:
        return None
    text = (
        f"{counted(facts.spooled, 'delivery in the spool is', 'deliveries in the spool are')} not in the"
        " database yet. That ends by itself within seconds; when it does not, the web process's log says why."
    )
    return Summary("attention", "Attention", text)


def _set_aside(facts: Facts) -> Summary | None:
    if not facts.set_aside:
        return None
    text = (
        f"{counted(facts.set_aside, 'delivery', 'deliveries')} cannot be put into the database,"
        " which refuses what they hold. The file set-aside in SPOOL_DIR keeps them. The web process's log"
        " says why. Mend that and restart the web process: it tries them again."
    )
    return Summary("trouble", "Trouble", text)


def _wrong_token(facts: Facts) -> Summary | None:
    wrong = facts.refused.get(WRONG_TOKEN)
    if wrong is None:
        return None
    text = (
        f"{_requests(wrong, facts)} with a callback token that is not ours."
        " If tasks were submitted with an older callback URL, put its token behind the new one in"
        " CALLBACK_TOKEN until they are done."
    )
    return Summary("attention", "Attention", text)


def _no_route(facts: Facts) -> Summary | None:
    stray = facts.refused.get(NO_ROUTE)
    if stray is None:
        return None
    text = (
        f"{_requests(stray, facts)} to a path under /callback that is no callback URL."
        " A callback URL is POST …/callbacks/<token>; see that tasks are submitted with exactly that."
    )
    return Summary("attention", "Attention", text)


def _shortened(facts: Facts) -> Summary | None:
    large = facts.refused.get(SHORTENED)
    if large is None:
        return None
    text = (
        f"of {counted(large.requests, 'large callback', 'large callbacks')} only the beginning was kept,"
        f" {_last(large, facts)}. Too many came for tasks that were neither registered nor found at upstream."
        " Look-ups ask for their results. If your app did not submit so many, somebody else knows your"
        " callback URL: change CALLBACK_TOKEN."
    )
    return Summary("attention", "Attention", text)


def _requests(refused: Refused, facts: Facts) -> str:
    came = counted(refused.requests, "request", "requests")
    return f"{came} of the last 24 h, {_last(refused, facts)}, came"


def _last(refused: Refused, facts: Facts) -> str:
    where = f" from {shown(refused.remote_addr, 60)}" if refused.remote_addr else ""
    last = "" if refused.requests == 1 else "the last "
    return f"{last}{ago(refused.last_at, facts.now)}{where}"
