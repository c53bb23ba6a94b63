"""Faults on look-ups and submissions: which call meets which, and what is answered then."""

import email.utils
import random
import time
from dataclasses import replace

from .answers import JSON_HEADERS, Answer, error_answer, json_answer
from .options import Options
from .tasks import draw_uuid


def draw_fault(options: Options, names: tuple[str, ...], kind: str, number: int) -> tuple[str | None, str]:
    """Draw which fault meets call `number` of a kind, if any, and the trace id of its answer."""
    rng = random.Random(f"{options.seed}:{kind}:{number}")
    trace_id, drawn = draw_uuid(rng), rng.random()
    for name in names:
        drawn -= getattr(options, name)
        if drawn < 0:
            return name, trace_id
    return None, trace_id


def fault_answer(fault: str, trace_id: str, retry_after: float | str) -> Answer:
    """Return what upstream answers instead."""
    if fault in ("rate_429", "submit_429"):
        content = {
            "error": {"code": "too_many_requests", "message": "You have exceeded the rate limit."},
            "trace_id": trace_id,
        }
        return replace(json_answer(content, 429), headers=JSON_HEADERS | {"Retry-After": _wait(retry_after)})
    if fault == "rate_502":
        return Answer(502, _page("502 Bad Gateway"), {"Content-Type": "text/html"})
    if fault == "submit_504":
        return Answer(504, _page("504 Gateway Time-out"), {"Content-Type": "text/html"})
    if fault == "submit_503":
        return error_answer(503, "busy", "All workers are busy.", trace_id)
    if fault == "rate_bare":
        return json_answer({"error": "upstream connect error", "trace_id": None}, 500)
    return error_answer(500, "api_error", "fetch failed", trace_id)


def _wait(retry_after: float | str) -> str:
    if retry_after == "date":
        # HTTP dates have whole seconds: add one, so that the date is not in the past at once.
        return email.utils.formatdate(time.time() + 2, usegmt=True)
    return f"{retry_after:g}"


def _page(title: str) -> bytes:
    return (
        f"<html>\r\n<head><title>{title}</title></head>\r\n"
        f"<body><center><h1>{title}</h1></center></body>\r\n</html>\r\n"
    ).encode()
