"""The overview's notices about callbacks that were not stored properly. Pure."""

from receiver.ledger.refusals import (
    GUESSED,
    NO_ROUTE,
    NOT_KEPT,
    SHORTENED,
    UNKNOWN_REFUSED,
    UNKNOWN_SERVICE,
    WRONG_TOKEN,
    Refused,
)
from receiver.web.formatting import ago, counted, shown
from receiver.web.watch.facts import Facts, Summary, since
from receiver.web.writes import KEPT, REFUSED, SPOOLED

_RECOVERED = "Look-ups still find the results of tasks that were registered or discovered."


def notices(facts: Facts) -> list[Summary | None]:
    """Return the notices about storing callbacks. None stands for no problem."""
    return [
        _writes_failing(facts),
        _lost_callbacks(facts),
        _damaged(facts),
        _unknown_refused(facts),
        _set_aside(facts),
        _spooled(facts),
        _wrong_token(facts),
        _no_route(facts),
        _guessing(facts),
        _shortened(facts),
        _unknown_service(facts),
    ]


def _writes_failing(facts: Facts) -> Summary | None:
    writes = facts.writes
    if writes.callbacks == SPOOLED:
        when = since(writes.since or facts.now, facts.now)
        database = f"the database has accepted no writes {when}: “{shown(writes.database)}”."
        text = f"{database} Callbacks wait in the spool. None is lost as long as the spool has room."
        return Summary("trouble", "Trouble", text, code="database_down")
    if writes.callbacks != REFUSED:
        return None
    when = since(writes.refused_since or facts.now, facts.now)
    text = (
        f"callbacks have been refused and lost {when}. The database accepts no writes:"
        f" “{shown(writes.database)}”. Neither does the spool: “{shown(writes.spool)}”."
        " Free space on the disk, or make it writable."
    )
    lost = facts.refused.get(NOT_KEPT)
    if lost:
        text = f"{text} {_lost_count(lost)} {_RECOVERED}"
    return Summary("trouble", "Trouble", text, code="callbacks_refused")


def _lost_callbacks(facts: Facts) -> Summary | None:
    lost = facts.refused.get(NOT_KEPT)
    if lost is None or facts.writes.callbacks == REFUSED:
        return None
    why = f" The reason was “{shown(lost.reason)}”." if lost.reason else ""
    text = f"{_lost_count(lost)}{why} {_RECOVERED}"
    return Summary("attention", "Attention", f"{text[:1].lower()}{text[1:]}", code="callbacks_lost")


def _lost_count(lost: Refused) -> str:
    callbacks = counted(lost.requests, "callback was", "callbacks were")
    return f"{callbacks} refused and lost {_between(lost)}."


def _between(refused: Refused) -> str:
    first, last = (f"{moment:%Y-%m-%d %H:%M:%S}" for moment in (refused.first_at, refused.last_at))
    return f"at {first} UTC" if first == last else f"from {first} to {last} UTC"


def _spooled(facts: Facts) -> Summary | None:
    refused = facts.writes.callbacks == REFUSED  # another notice then has the spool's problem
    if not refused and (facts.spooled is None or facts.writes.spool is not None):
        why = f": “{shown(facts.writes.spool)}”" if facts.writes.spool else ""
        text = (
            f"the spool does not work{why}. If the database fails now, callbacks are lost."
            " Make SPOOL_DIR a writable directory on a disk with free space."
        )
        return Summary("attention", "Attention", text, code="spool_unusable")
    if not facts.spooled or facts.writes.callbacks != KEPT:  # the notice on the database then tells why
        return None
    text = (
        f"{counted(facts.spooled, 'delivery in the spool is', 'deliveries in the spool are')} not in the"
        " database yet. They should follow within seconds; if not, the web process's log says why."
    )
    return Summary("attention", "Attention", text, code="spool_waiting")


def _damaged(facts: Facts) -> Summary | None:
    if not facts.damaged:
        return None
    files = counted(facts.damaged, "file")
    text = (
        f"{files} of the spool had damaged records, so acknowledged callbacks may be lost. {_RECOVERED} See"
        " whether the disk of SPOOL_DIR is broken. What was damaged is kept there as damaged-…: move it away,"
        " and this notice goes."
    )
    return Summary("trouble", "Trouble", text, code="deliveries_damaged")


def _set_aside(facts: Facts) -> Summary | None:
    if not facts.set_aside:
        return None
    text = (
        f"the database refuses the content of {counted(facts.set_aside, 'delivery', 'deliveries')}."
        " The file set-aside in SPOOL_DIR keeps them. The web process's log says why. Fix that and restart"
        " the web process: it tries them again."
    )
    return Summary("trouble", "Trouble", text, code="deliveries_set_aside")


def _wrong_token(facts: Facts) -> Summary | None:
    wrong = facts.refused.get(WRONG_TOKEN)
    if wrong is None:
        return None
    text = (
        f"{_requests(wrong, facts)} with a callback token that is not ours."
        " If tasks were submitted with an older callback URL, add its token after the new one in"
        " CALLBACK_TOKEN until they are done. Otherwise somebody is guessing: that is hopeless if each token"
        " is long and random, like the output of openssl rand -hex 32."
    )
    return Summary("attention", "Attention", text, code="wrong_token")


def _no_route(facts: Facts) -> Summary | None:
    stray = facts.refused.get(NO_ROUTE)
    if stray is None:
        return None
    text = (
        f"{_requests(stray, facts)} to a path under /callback that is not a callback URL, or not by POST."
        " Callbacks are POST …/callbacks/<token>. Check that tasks are submitted with exactly that URL, and"
        " that nothing in front redirects it: a redirect turns a POST into a GET without the result."
    )
    return Summary("attention", "Attention", text, code="no_route")


def _guessing(facts: Facts) -> Summary | None:
    guessed = facts.refused.get(GUESSED)
    if guessed is None:
        return None
    text = (
        f"{_requests(guessed, facts)} with a wrong API key, too fast, and got 429."
        " Right ones are always answered. If that is your own app, give it the right key. Otherwise somebody"
        " is guessing. That is hopeless if each key is long and random, like the output of"
        " openssl rand -hex 32."
    )
    return Summary("attention", "Attention", text, code="keys_guessed")


def _unknown_refused(facts: Facts) -> Summary | None:
    refused = facts.refused.get(UNKNOWN_REFUSED)
    if refused is None:
        return None
    text = (
        f"{counted(refused.requests, 'callback was', 'callbacks were')} not kept, {_last(refused, facts)}."
        " Too many came for tasks that were neither registered nor found at upstream, or for one task."
        " Discovery finds your own tasks among them. If your app submits so many, register them, or raise"
        " UNKNOWN_CALLBACKS_PER_MINUTE. Otherwise somebody else knows your callback URL: change"
        " CALLBACK_TOKEN."
    )
    return Summary("trouble", "Trouble", text, code="unknown_refused")


def _shortened(facts: Facts) -> Summary | None:
    large = facts.refused.get(SHORTENED)
    if large is None:
        return None
    text = (
        f"of {counted(large.requests, 'large callback', 'large callbacks')} only the beginning was kept,"
        f" {_last(large, facts)}. Too many came for tasks that were neither registered nor found at upstream,"
        " or for one task. Look-ups ask for their results. If your app did not submit so many tasks, somebody"
        " else knows your callback URL: change CALLBACK_TOKEN."
    )
    return Summary("attention", "Attention", text, code="callbacks_shortened")


def _unknown_service(facts: Facts) -> Summary | None:
    named = facts.refused.get(UNKNOWN_SERVICE)
    if named is None:
        return None
    last = f" (the last as “{shown(named.reason, 80)}”)" if named.reason else ""
    text = (
        f"{counted(named.requests, 'callback', 'callbacks')} came to a URL that names a service which"
        f" Backstop does not know{last}, {_last(named, facts)}. Such a callback is kept as if it named none."
        " Correct it in the callback URL that your app submits."
    )
    return Summary("attention", "Attention", text, code="unknown_service")


def _requests(refused: Refused, facts: Facts) -> str:
    came = counted(refused.requests, "request", "requests")
    return f"{came} of the last 24 h, {_last(refused, facts)}, came"


def _last(refused: Refused, facts: Facts) -> str:
    where = f" from {shown(refused.remote_addr, 60)}" if refused.remote_addr else ""
    last = "" if refused.requests == 1 else "the last "
    return f"{last}{ago(refused.last_at, facts.now)}{where}"
