"""The stand-in's options, with the same checks for the command line, tests and /control."""

import dataclasses
import math
import re
from dataclasses import dataclass, field
from typing import Any

# Errors for the whole account, by code, with their HTTP status.
ACCOUNT_ERRORS = {
    "invalid_token": 401,
    "token_expired": 401,
    "token_mismatched": 400,
    "no_token": 400,
    "used_up": 403,
    "insufficient_balance": 402,
    "disabled": 400,
    "no_api": 404,
}

# The forms that the response of a running task has.
RUNNING = ("any", "null", "absent", "empty", "success", "partial")


def _share(text: str) -> Any:
    return field(default=0.0, metadata={"kind": "share", "help": text})


def _seconds(default: float, text: str) -> Any:
    return field(default=default, metadata={"kind": "seconds", "help": text})


def _other(default: Any, kind: str, text: str) -> Any:
    return field(default=default, metadata={"kind": kind, "help": text})


@dataclass
class Options:
    """How the stand-in behaves. Options for tasks are read at submission, the others at each call."""

    token: str = _other("test-token", "text", "the bearer token it accepts")
    seed: int = _other(
        1, "number", "decides every outcome, together with the number of the submission or call"
    )
    work: tuple[float, float] = _other(
        (1.0, 4.0), "span", "shortest and longest time a task works, in seconds"
    )
    record_lag: float = _seconds(0.0, "a task's record becomes final this long after its callback was sent")

    lost: float = _share("share of tasks that send no callback at all")
    duplicated: float = _share("share of tasks that send their final callback twice")
    disordered: float = _share("share of tasks that send a stale progress callback after the final one")
    failing: float = _share("share of tasks that end with an error")
    progress: float = _share("share of tasks that send progress callbacks (describe tasks never do)")

    running: str = _other(
        "any",
        "running",
        "the response of running tasks: null, absent, empty, success without a result, partial; or any"
        " of them",
    )

    submit_latency: float = _seconds(0.0, "time each submission takes before its answer begins")
    submit_429: float = _share("share of submissions answered 429 with Retry-After; nothing is taken")
    submit_400: float = _share("share of submissions answered 400, with a failure callback; nothing is taken")
    submit_503: float = _share("share of submissions answered 503 busy; nothing is taken")
    submit_cut: float = _share("share of submissions taken, then cut off before any answer")
    submit_half: float = _share("share of submissions taken, then answered with half of the body")
    submit_500: float = _share("share of submissions taken, then answered 500 api_error")
    submit_504: float = _share("share of submissions taken, then answered 504 with an HTML page")
    submit_hang: float = _share("share of submissions taken, held for --hang-seconds, then closed")
    chat_gap: float = _seconds(0.1, "time between the events of a streamed chat")

    latency: float = _seconds(0.05, "time each look-up call takes")
    rate_429: float = _share("share of look-up calls answered 429 with Retry-After")
    rate_500: float = _share("share of look-up calls answered 500 api_error")
    rate_502: float = _share("share of look-up calls answered 502 with an HTML page")
    rate_hang: float = _share("share of look-up calls held for --hang-seconds, then closed without an answer")
    rate_cut: float = _share("share of look-up calls answered with half of the body")
    rate_bare: float = _share("share of look-up calls answered 500 with a bare string as the error")
    hang_seconds: float = _seconds(30.0, "how long a call is held by --rate-hang and --submit-hang")
    retry_after: float | str = _other(
        1.0, "retry_after", "Retry-After of a 429: seconds, or 'date' for an HTTP date"
    )
    packed: float = _share("share of look-up calls answered with gzip")
    empty_unknown: float = _share("share of batches that know none of their ids answered {}")
    most_bytes: int = _other(
        0, "number", "answers beyond so many bytes become 413 request_too_large; 0: none"
    )
    poison: tuple[str, ...] = _other((), "ids", "an id that turns every look-up call holding it into a 400")
    poison_code: str = _other("bad_request", "text", "the code of that 400")
    account_error: str | None = _other(
        None, "account_error", "answer every call with this account-wide error"
    )

    def __post_init__(self) -> None:
        for name in OPTION_FIELDS:
            setattr(self, name, _checked(name, getattr(self, name)))
        for names in (FAULTS, SUBMIT_FAULTS):
            if sum(getattr(self, name) for name in names) > 1 + 1e-9:
                raise ValueError(f"the rates {', '.join(names)} add up to more than 1")

    def change(self, changes: dict[str, Any]) -> None:
        """Set the named options, all or none. Raises ValueError for an unknown name or a bad value."""
        named = {name.replace("-", "_"): value for name, value in changes.items()}
        if unknown := sorted(named.keys() - OPTION_FIELDS.keys()):
            raise ValueError(f"unknown option: {', '.join(unknown)}")
        checked = dataclasses.replace(self, **named)
        for name in named:
            setattr(self, name, getattr(checked, name))


def _checked(name: str, value: Any) -> Any:
    try:
        return _CHECKS[OPTION_FIELDS[name].metadata["kind"]](value)
    except (TypeError, ValueError, OverflowError) as problem:
        raise ValueError(f"{name}: {problem}") from None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _seconds_value(value: Any) -> float:
    if (seconds := _number(value)) < 0:
        raise ValueError(f"{value!r} is below 0 seconds")
    return seconds


def _share_value(value: Any) -> float:
    if not 0 <= (share := _number(value)) <= 1:
        raise ValueError(f"{value!r} is not between 0 and 1")
    return share


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not a text")
    return value


def _span(value: Any) -> tuple[float, float]:
    shortest, longest = (_seconds_value(part) for part in value)
    if shortest > longest:
        raise ValueError(f"{shortest:g} is longer than {longest:g}")
    return shortest, longest


def _ids(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        raise ValueError(f"{value!r} is not a list of ids")
    return tuple(_text(part) for part in value)


def _retry_after(value: Any) -> float | str:
    return "date" if value == "date" else _seconds_value(value)


def _running(value: Any) -> str:
    if value not in RUNNING:
        raise ValueError(f"{value!r} is none of {', '.join(RUNNING)}")
    return str(value)


def _account_error(value: Any) -> str | None:
    if value is not None and value not in ACCOUNT_ERRORS:
        raise ValueError(f"{value!r} is none of {', '.join(ACCOUNT_ERRORS)}")
    return None if value is None else str(value)


_CHECKS: dict[str, Any] = {
    "share": _share_value,
    "seconds": _seconds_value,
    "number": _whole,
    "text": _text,
    "span": _span,
    "ids": _ids,
    "retry_after": _retry_after,
    "account_error": _account_error,
    "running": _running,
}
OPTION_FIELDS = {option.name: option for option in dataclasses.fields(Options)}
FAULTS = tuple(name for name in OPTION_FIELDS if name.startswith("rate_"))
# Those before `submit_cut` show that nothing was taken.
SUBMIT_FAULTS = tuple(name for name in OPTION_FIELDS if re.fullmatch(r"submit_(\d+|cut|half|hang)", name))
