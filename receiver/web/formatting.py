"""Formats times, sizes and a task's state for the pages. Pure."""

from datetime import datetime, timedelta

from receiver.clock import SKEW
from receiver.ledger.models import Task
from receiver.ledger.pace import TaskKind
from receiver.ledger.timetable import Timetable
from receiver.redact import mask_tokens
from receiver.upstream.results import EXPIRED, FAILED, FINAL, PENDING

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_JUST_NOW_SECONDS = 2
_LIKELY_FORGED = "The callback may be forged: if it is, change CALLBACK_TOKEN."
_MAY_BE_REFUSED = "Upstream may keep no record of a submission that it refused."
_LIKELY_ACCOUNT = (
    "It knew none of the tasks that Backstop asked about lately. Most likely ACEDATACLOUD_API_TOKEN belongs"
    " to another account than the one that submits them."
)


def exact(moment: datetime) -> str:
    """Return a moment to the second: 2026-01-31 12:00:00 UTC."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def as_input(moment: datetime | None) -> str:
    """Return a moment as the value of a datetime-local field; "" for None."""
    if moment is None:
        return ""
    # Only as precise as necessary. The field supports milliseconds at most.
    finest = "milliseconds" if moment.microsecond else "seconds" if moment.second else "minutes"
    return moment.isoformat(timespec=finest)


def ago(moment: datetime, now: datetime) -> str:
    """Return how long ago something happened, such as `4 min ago`.

    A moment in the future comes from a wrong clock, and the text says so.
    """
    gone = now - moment
    if gone < -SKEW:
        return f"{span(-gone)} in the future by a wrong clock"
    return "just now" if gone.total_seconds() < _JUST_NOW_SECONDS else f"{span(gone)} ago"


def ahead(moment: datetime, now: datetime) -> str:
    """Return how far ahead something is, such as `in 20 s`; `in a moment` if it is past."""
    left = moment - now
    return "in a moment" if left.total_seconds() < _JUST_NOW_SECONDS else f"in {span(left)}"


def span(length: timedelta) -> str:
    """Return a length of time for people: `42 s`, `4 min`, `1 h 20 min`, `3 days`."""
    seconds = int(length.total_seconds())
    if seconds < _MINUTE:
        return f"{seconds} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE} min"
    if seconds < 2 * _DAY:
        hours, minutes = seconds // _HOUR, seconds % _HOUR // _MINUTE
        return f"{hours} h {minutes} min" if minutes and hours < 10 else f"{hours} h"
    return f"{seconds // _DAY:,} days"


def lasted(length: timedelta) -> str:
    """Return how long something lasted, to the second below an hour: `0.7 s`, `42 s`, `4 min 12 s`, `1 h`."""
    if length < timedelta(seconds=10):
        return took(length)
    minutes, seconds = divmod(int(length.total_seconds()), _MINUTE)
    if not 1 <= minutes < _HOUR // _MINUTE or not seconds:
        return span(length)
    return f"{minutes} min {seconds} s"


def took(length: timedelta) -> str:
    """Return how long something took, with more precision for short times: `20 ms`, `0.7 s`, `4 min`."""
    seconds = length.total_seconds()
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else span(length)


def size(count: int) -> str:
    """Return a number of bytes for people: 812 bytes, 1.2 kB, 3.4 MB, 5.6 GB."""
    if count < 1000:
        return counted(count, "byte")
    if count < 999_950:
        return f"{count / 1000:,.1f} kB"
    return f"{count / 10**6:,.1f} MB" if count < 999_950_000 else f"{count / 10**9:,.1f} GB"


def counted(count: int, noun: str, nouns: str | None = None) -> str:
    """Return a number with its noun: `1 task`, `1,200 tasks`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {nouns or f'{noun}s'}"


def begun(text: str) -> str:
    """Return a text as the beginning of a sentence. An address stays as it is."""
    return text if text.startswith(("http://", "https://")) else text[:1].upper() + text[1:]


def share(part: int, whole: int) -> str:
    """Return a part as a percentage: `2.6 %`, `0 %`; `none` if the whole is 0."""
    if not whole:
        return "none"
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent in {0, 100} or percent >= 10 else f"{max(percent, 0.1):.1f} %"


def shown(text: object, limit: int = 300) -> str:
    """Return a foreign text for a page: callback tokens masked, cut at `limit`.

    Lone surrogates become escapes, as UTF-8 cannot encode them.
    """
    whole = mask_tokens(str(text).encode(errors="backslashreplace").decode())
    return whole if len(whole) <= limit else f"{whole[:limit]}…"


def heading(task: Task, limit: int = 300) -> str:
    """Return a task's title: its prompt, else its ref, else its id. It is cut at `limit`."""
    return shown(task.prompt or task.ref or task.id, limit)


def trust(task: Task, knows_none: bool = False) -> str:
    """Explain how far a task's status can be trusted. Callbacks are unsigned; the Tasks API's word counts.

    `knows_none`: upstream knew none of the tasks that we asked about lately.
    """
    if task.disputed and task.confirmed is None:
        said = f"a callback says {task.callback_status}, the Tasks API has not confirmed it in time"
        return f"Disputed: {said}. {_LIKELY_ACCOUNT if knows_none else _LIKELY_FORGED}"
    if task.disputed:
        return (
            f"Disputed: a callback says {task.callback_status}, the Tasks API says {task.lookup_status}."
            " The Tasks API's word counts; the callback may be forged: if it is, change CALLBACK_TOKEN."
        )
    if task.confirmed and task.callback_status in FINAL:
        return f"Confirmed: callback and Tasks API both say {task.status}."
    if task.confirmed:
        return f"The Tasks API says {task.status}. The final callback never came."
    if task.status == FAILED:
        return f"Not confirmed: only a callback says so. {_MAY_BE_REFUSED}"
    if task.status in FINAL:
        return "Not confirmed: only a callback says so, and callbacks are unsigned."
    return "Neither a callback nor the Tasks API has reported a final result."


def next_lookup(task: Task, now: datetime, hindrance: str | None) -> str:
    """Explain when the next look-up of a task is due, or why there is none.

    `hindrance` says why the reconciler cannot ask now; None if it can.
    """
    if task.next_lookup_at is None:
        return _why_never(task)
    if task.next_lookup_at <= now:
        return f"Due, but {hindrance}." if hindrance else "Due now: the next run asks."
    when = ahead(task.next_lookup_at, now)
    when = f"{when[:1].upper()}{when[1:]}"
    if task.status in FINAL:
        return f"{when}, to confirm what the callback says."
    if task.attempts:
        asked = counted(task.attempts, "look-up")
        return f"{when}, after {asked} without a final result."
    return f"{when}, unless a callback settles it before."


def usual_time(kind: TaskKind, timetable: Timetable) -> str:
    """Tell how long tasks like this one take, as far as that is known."""
    known = timetable.known_kind(kind)
    if known is None:
        return "How long such tasks take is not known yet."
    pace = timetable.paces[known]
    usual, most = (lasted(timedelta(seconds=pace.quantile(share))) for share in (0.5, 0.9))
    return f"Tasks of the kind “{kind_name(known)}” take {usual} as a rule, nine of ten less than {most}."


def kind_name(kind: TaskKind) -> str:
    """Return the words for a kind of task; callers name types and modes."""
    return shown(" ".join(part for part in (kind.mode, kind.type) if part) or kind.service, 40)


def _why_never(task: Task) -> str:
    if task.confirmed is not None:
        return "None: upstream has given its final answer."
    if task.status == EXPIRED or task.gave_up_at:
        return "None: Backstop gave up asking. A late callback may still settle it."
    if task.status == PENDING:
        return "None is planned."
    return "None: the callback's result was accepted without a look-up."
