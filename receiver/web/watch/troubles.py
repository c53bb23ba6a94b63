"""What can be wrong, by the code that monitors match: its title, and when ALERT_URL hears of it. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from receiver.web.formatting import begun
from receiver.web.watch.facts import Summary

_AT_ONCE = timedelta(seconds=20)  # a process that restarts is no incident
_SOON = timedelta(minutes=2)
_LATER = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of trouble. `alert_after` is how long it must last before it is told; None for never."""

    code: str
    title: str
    alert_after: timedelta | None


# In the order in which people are told, by what they cost. First come lost results, then what keeps results
# from being found, then what keeps your app from being told, then the rest.
# A stranger can cause a wrong token or path. Nobody is woken for that.
_KINDS = (
    Kind("callbacks_refused", "Callbacks are refused and lost", _AT_ONCE),
    Kind("callbacks_lost", "Callbacks were refused and lost", _AT_ONCE),
    Kind("deliveries_damaged", "Deliveries in the spool are damaged", _SOON),
    Kind("database_down", "The database accepts no writes", _SOON),
    Kind("schema_behind", "The database lacks migrations", _SOON),
    Kind("deliveries_set_aside", "The database refuses the content of deliveries", _SOON),
    Kind("spool_unusable", "The spool does not work", _SOON),
    Kind("spool_waiting", "Deliveries have waited in the spool for long", _LATER),
    Kind("unknown_refused", "Callbacks of unknown tasks are not kept", _SOON),
    Kind("wrong_token", "Callbacks come with a wrong token", None),
    Kind("no_route", "Callbacks come to a wrong path", None),
    Kind("callbacks_shortened", "Large callbacks are shortened", None),
    Kind("unknown_service", "Callback URLs name an unknown service", None),
    Kind("reconciler_never_ran", "The reconciler has never run", _LATER),
    Kind("reconciler_silent", "The reconciler is silent", _SOON),
    Kind("clock_wrong", "The clock is wrong", _SOON),
    Kind("upstream_refuses", "Upstream refuses look-ups", _AT_ONCE),
    Kind("service_paused", "Upstream refuses look-ups of a service", _AT_ONCE),
    Kind("upstream_failing", "Look-ups fail", _LATER),
    Kind("upstream_knows_none", "Upstream knows none of the tasks", _LATER),
    Kind("upstream_throttles", "Upstream wants no look-ups for a while", None),
    Kind("missing_share_high", "Far more callbacks are missing than usual", _LATER),
    Kind("submissions_unclear", "Submissions are unclear", _LATER),
    Kind("app_untold", "Your app is told nothing", _SOON),
    Kind("endpoint_held", "An endpoint is held", _AT_ONCE),
    Kind("forwards_given_up", "Events were given up", _SOON),
    Kind("forwards_late", "Your app does not take its events", _SOON),
    Kind("endpoint_paused", "An endpoint is paused by a person", None),
    Kind("disk_nearly_full", "A disk is nearly full", _SOON),
    Kind("tasks_given_up", "Tasks were given up", None),
    Kind("disputes", "Results are disputed", _SOON),
    Kind("keys_guessed", "Somebody guesses API keys", None),
)
KINDS = {kind.code: kind for kind in _KINDS}
_PLACES = {code: place for place, code in enumerate(KINDS)}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is wrong now. `message` says what to do; it may hold addresses and error texts."""

    code: str
    message: str

    @property
    def title(self) -> str:
        return KINDS[self.code].title


SCHEMA_BEHIND = Trouble(
    "schema_behind",
    "The database lacks migrations, and callbacks wait in the spool. Run `flask --app wsgi migrate`.",
)


def in_order(notices: Iterable[Summary | None]) -> list[Summary]:
    """Return the notices, the worst first: troubles, then what asks for attention, each by what it costs."""
    told = [one for one in notices if one]
    return sorted(told, key=lambda one: (one.severity != "trouble", _PLACES[one.code]))


def troubles(summaries: Sequence[Summary]) -> list[Trouble]:
    """Return the troubles among the overview's notices, the worst first."""
    return [Trouble(one.code, begun(one.with_command)) for one in summaries if one.code]
