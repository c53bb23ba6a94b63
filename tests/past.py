"""A made-up week of tasks, written through the real door with times that have passed.

So a demonstration's plots have something to show, and whoever looks at a screenshot sees a service in use.
"""

import json
import math
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from receiver.ledger import runs, store
from receiver.ledger.clock import to_unix
from receiver.ledger.evidence import Answer, Patience, Registration
from receiver.ledger.results import read_item

SUBJECTS = ("a lighthouse at dusk", "a cat on a table", "a harbour in fog", "an orchard in bloom")
STYLES = ("watercolour", "35 mm film", "isometric", "woodcut --ar 16:9", "studio light --v 6")
KINDS = ("imagine", "edits", "videos", "describe")

_LOST, _FAILING, _DISPUTED = 0.04, 0.06, 0.005
_GRACE = timedelta(minutes=3)
_PATIENCE = Patience(
    backoff=lambda _: _GRACE,
    unknown_backoff=lambda _: _GRACE,
    give_up_after=timedelta(days=1),
    doubt_after=_GRACE,
)


def prompt_of(rng: random.Random) -> str:
    """Return a prompt as a customer might submit it."""
    return f"{rng.choice(SUBJECTS)}, {rng.choice(STYLES)}"


def make_past(now: datetime, upstream_url: str, days: int = 7, a_day: int = 150, seed: int = 1) -> int:
    """Write what a deployment would have kept of the days before `now`, and return how many tasks that were.

    Some callbacks never came, some tasks failed, a few were disputed; more came by day than by night.
    """
    rng = random.Random(seed)
    moments = sorted(_moments(rng, now - timedelta(days=days), now - timedelta(minutes=10), a_day))
    for moment in moments:
        # Of the last day nothing is left to worry about, so that the page is calm when it is first seen.
        _live(_Task(rng, moment, upstream_url, is_long_ago=now - moment > timedelta(days=2)))
    return len(moments)


class _Task:
    """One task of the past and what was to become of it."""

    def __init__(
        self, rng: random.Random, submitted_at: datetime, upstream_url: str, is_long_ago: bool
    ) -> None:
        self.id = f"{rng.getrandbits(32):08x}-{rng.getrandbits(16):04x}-4{rng.getrandbits(12):03x}-past"
        self.type = rng.choices(KINDS, (6, 2, 1, 1))[0]
        self.ref = f"order-{rng.randrange(1000, 10000)}"
        self.prompt = prompt_of(rng)
        self.submitted_at = submitted_at
        self.done_at = submitted_at + timedelta(seconds=rng.lognormvariate(math.log(45), 0.5))
        self.lost, self.failed = rng.random() < _LOST, rng.random() < _FAILING
        self.disputed = is_long_ago and rng.random() < _DISPUTED
        self.asked_at = max(self.done_at, submitted_at + _GRACE) + timedelta(seconds=rng.uniform(1, 90))
        self._url = f"{upstream_url}/images/{self.id}.png"

    def response(self, failed: bool) -> dict[str, Any]:
        told: dict[str, Any] = {"success": not failed, "task_id": self.id, "trace_id": f"trace-{self.id[:8]}"}
        if failed:
            return told | {"error": {"code": "bad_request", "message": "The prompt is not allowed."}}
        if self.type == "describe":
            return told | {"descriptions": [self.prompt, f"{self.prompt}, seen from afar"]}
        return told | {"progress": 100, "image_url": self._url, "actions": ["upscale1", "variation1"]}

    def item(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": self.type,
            "request": {"prompt": self.prompt},
            "response": self.response(self.failed != self.disputed),
            "created_at": to_unix(self.submitted_at),
            "finished_at": to_unix(self.done_at),
        }


def _moments(rng: random.Random, since: datetime, until: datetime, a_day: int) -> Iterator[datetime]:
    moment = since
    while True:
        by_day = 1 + 0.8 * math.sin((moment.hour - 9) / 24 * 2 * math.pi)  # the most in the afternoon
        moment += timedelta(seconds=rng.expovariate(a_day * by_day / 86_400))
        if moment >= until:
            return
        yield moment


def _live(task: _Task) -> None:
    """Let a task happen: registered, called back unless that was lost, asked about."""
    registration = Registration(task.id, type=task.type, ref=task.ref, submitted_at=task.submitted_at)
    store.register([registration], task.submitted_at, grace=_GRACE)
    if not task.lost:
        body = json.dumps(task.response(task.failed)).encode()
        headers = (("User-Agent", "python-requests/2.32.3"), ("Content-Type", "application/json"))
        callback = store.Callback(body, len(body), task.ref, "203.0.113.7", headers)
        store.record(callback, task.done_at, grace=_GRACE, confirm=True)
    claimed = store.claim(task.asked_at, limit=10, lease=_GRACE)
    run_id = runs.open_run("demo:1", task.asked_at)
    answers = {task.id: Answer(read_item(task.item()))}
    answered_at = task.asked_at + timedelta(milliseconds=180)
    settled = store.apply(claimed, answers, run_id, task.asked_at, answered_at, _PATIENCE)
    counts = {"due": 1, "asked": 1, "settled": settled, "calls": 1}
    runs.close_run(run_id, answered_at + timedelta(milliseconds=20), counts)
