"""The notices about what is far from usual: a wrong clock, callbacks that never come, a full disk. Pure."""

from datetime import timedelta

from receiver.clock import WRONG_BEYOND
from receiver.ledger.refusals import NOT_KEPT
from receiver.web.formatting import counted, share, size, span
from receiver.web.watch.facts import Facts, Missing, Summary

# The share of missing callbacks is far above its usual when all of these hold.
_FEWEST_MISSED = 10
_TIMES_USUAL = 3
_ABOVE_USUAL = 0.1


def notices(facts: Facts) -> tuple[Summary | None, ...]:
    """Return what is far from usual. None stands for no problem."""
    return _clock_wrong(facts), _disk_nearly_full(facts), _many_missing(facts)


def is_far_above_usual(missing: Missing) -> bool:
    """Tell whether far more callbacks were missing lately than before."""
    if missing.missed < _FEWEST_MISSED:
        return False
    usual = missing.missed_before / missing.settled_before if missing.settled_before else 0.0
    return missing.missed / missing.settled > max(usual * _TIMES_USUAL, usual + _ABOVE_USUAL)


def _clock_wrong(facts: Facts) -> Summary | None:
    ahead = facts.clock_ahead
    if ahead is None or abs(ahead) <= WRONG_BEYOND:
        return None
    words = "ahead of" if ahead > timedelta(0) else "behind"
    text = (
        f"the reconciler's clock is {span(abs(ahead))} {words} upstream's: look-ups and retries come at wrong"
        " times. Set the clock of its machine, and keep it right with NTP (systemd-timesyncd or chrony)."
    )
    return Summary("trouble", "Trouble", text, code="clock_wrong")


def _disk_nearly_full(facts: Facts) -> Summary | None:
    room = facts.room
    if room is None or not room.is_nearly_full:
        return None
    text = (
        f"the disk of {room.path} is nearly full: {size(room.free)} of {size(room.total)} are free."
        " Without room callbacks are lost. Free some, enlarge the disk, or lower RETENTION_DAYS."
    )
    return Summary("trouble", "Trouble", text, code="disk_nearly_full")


def _many_missing(facts: Facts) -> Summary | None:
    missing = facts.missing
    if missing is None or not is_far_above_usual(missing):
        return None
    before = ""
    if missing.settled_before:
        before = f" Before, it was {share(missing.missed_before, missing.settled_before)}."
    lost, check = facts.refused.get(NOT_KEPT), "Check"
    if lost is not None:
        were = counted(lost.requests, "callback was", "callbacks were")
        check = f"In the last 24 h {were} refused and lost here. If that does not explain it, check"
    text = (
        f"{share(missing.missed, missing.settled)} of the callbacks of the last hours never came.{before}"
        f" Look-ups have recovered the results. {check} that tasks are submitted with this deployment's"
        " callback URL, and that upstream can reach it."
    )
    return Summary("attention", "Attention", text, code="missing_share_high")
