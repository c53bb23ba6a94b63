"""Invents a week of tasks in the past, with the ledger's own rules.

It fills the plots of the demonstration, and screenshots then show a service in use.
"""

import hashlib
import json
import math
import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from peewee import chunked

from receiver.clock import to_unix
from receiver.ledger import evidence, registration
from receiver.ledger.engine.db import writing
from receiver.ledger.evidence import Answer
from receiver.ledger.kinds import CALLBACK, LOOKUP, REGISTRATION, CallbackRow, LookupRow
from receiver.ledger.merge import merge
from receiver.ledger.models import Delivery, Lookup, ReconcileRun, Task
from receiver.ledger.patience import Patience
from receiver.ledger.registration import Registration
from receiver.ledger.timetable import Timetable
from receiver.upstream.results import read_callback, read_item

SUBJECTS = ("a lighthouse at dusk", "a cat on a table", "a harbour in fog", "an orchard in bloom")
STYLES = ("watercolour", "35 mm film", "isometric", "woodcut --ar 16:9", "studio light --v 6")
KINDS = ("imagine", "edits", "videos", "describe")
SONGS = "audios"  # of another service

_LOST, _FAILING, _DISPUTED = 0.04, 0.06, 0.005
GRACE = timedelta(seconds=30)
TIMETABLE = Timetable(GRACE)
PATIENCE = Patience(
    backoff=lambda *_: GRACE,
    give_up_after=timedelta(days=1),
    doubt_after=GRACE,
)
HEADERS = (("User-Agent", "python-requests/2.32.3"), ("Content-Type", "application/json"))
SENDER = "203.0.113.7"
_RECONCILER = "demo:1"
_ROWS_AT_ONCE = 200


def prompt_of(rng: random.Random) -> str:
    """Return a prompt as a customer might submit it."""
    return f"{rng.choice(SUBJECTS)}, {rng.choice(STYLES)}"


def make_past(now: datetime, upstream_url: str, days: int = 7, a_day: int = 150, seed: int = 1) -> int:
    """Write the ledger of the days before `now`, and return its number of tasks.

    Some callbacks never came, some tasks failed, a few were disputed. More tasks came by day than by night.
    """
    tasks = make_up(now, upstream_url, days, a_day, seed)
    # One transaction, as one for each step would wait for the disk thousands of times.
    with writing():
        for some in chunked(tasks, _ROWS_AT_ONCE):
            _write(some)
    return len(tasks)


def make_up(now: datetime, upstream_url: str, days: int, a_day: int, seed: int) -> "list[PastTask]":
    """Return the tasks of the days before `now`, oldest first."""
    rng = random.Random(seed)
    moments = sorted(_moments(rng, now - timedelta(days=days), now - timedelta(minutes=10), a_day))
    # The last day has no problems, so that the overview is calm at first sight.
    return [PastTask(rng, moment, upstream_url, now - moment > timedelta(days=2)) for moment in moments]


class PastTask:
    """One task of the past and its intended outcome."""

    def __init__(
        self, rng: random.Random, submitted_at: datetime, upstream_url: str, is_long_ago: bool
    ) -> None:
        self.id = f"{rng.getrandbits(32):08x}-{rng.getrandbits(16):04x}-4{rng.getrandbits(12):03x}-past"
        self.type = rng.choices((*KINDS, SONGS), (6, 2, 1, 1, 1))[0]
        self.service = "suno" if self.type == SONGS else "midjourney"
        self.ref = f"order-{rng.randrange(1000, 10000)}"
        self.prompt = prompt_of(rng)
        self.submitted_at = submitted_at
        self.done_at = submitted_at + timedelta(seconds=rng.lognormvariate(math.log(45), 0.5))
        self.lost, self.failed = rng.random() < _LOST, rng.random() < _FAILING
        self.disputed = is_long_ago and rng.random() < _DISPUTED
        self.asked_at = max(self.done_at, submitted_at + GRACE) + timedelta(seconds=rng.uniform(1, 20))
        self.answered_at = self.asked_at + timedelta(milliseconds=180)
        self._upstream_url = upstream_url

    @property
    def registration(self) -> Registration:
        return Registration(
            self.id, self.service, type=self.type, ref=self.ref, submitted_at=self.submitted_at
        )

    @property
    def callback(self) -> bytes:
        """Return the body that upstream posted, or would have posted if the callback had not been lost."""
        return json.dumps(self.response(self.failed)).encode()

    def response(self, failed: bool) -> dict[str, Any]:
        told: dict[str, Any] = {"success": not failed, "task_id": self.id, "trace_id": f"trace-{self.id[:8]}"}
        if failed:
            return told | {"error": {"code": "bad_request", "message": "The prompt is not allowed."}}
        if self.type == "describe":
            return told | {"descriptions": [self.prompt, f"{self.prompt}, seen from afar"]}
        if self.type == SONGS:
            return told | {"data": [self._song(number) for number in range(2)]}
        told |= {"progress": 100, "image_url": f"{self._upstream_url}/images/{self.id}.png"}
        if self.type == "videos":
            urls = [f"{self._upstream_url}/videos/{self.id}/0_{part}.mp4" for part in range(4)]
            return told | {"video_urls": urls}
        return told | {"actions": ["upscale1", "variation1"]}

    def _song(self, number: int) -> dict[str, Any]:
        name = f"{self.id}_{number}"
        return {
            "id": name,
            "title": self.prompt.partition(",")[0].capitalize(),
            "image_url": f"{self._upstream_url}/images/{name}.png",
            "lyric": f"[Verse]\nI saw {self.prompt}\n\n[Chorus]\nAnd I came back to see it again",
            "audio_url": f"{self._upstream_url}/audios/{name}.mp3",
            "video_url": f"{self._upstream_url}/videos/{self.id}/0_{number}.mp4",
            "state": "succeeded",
        }

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


def _write(tasks: Sequence[PastTask]) -> None:
    """Register some tasks, record their callbacks except lost ones, and apply their look-ups."""
    runs = {task.id: _insert_run(task) for task in sorted(tasks, key=lambda task: task.asked_at)}
    tasks = sorted(tasks, key=lambda task: task.id)  # in the order that `merge` needs
    called_back = [task for task in tasks if not task.lost]
    registered = (
        registration.of_registrations([task.registration], task.submitted_at, TIMETABLE) for task in tasks
    )
    merge(REGISTRATION, [row for rows in registered for row in rows]).execute()
    merge(CALLBACK, [_said_by_callback(task) for task in called_back]).execute()
    Delivery.insert_many([_delivery(task) for task in called_back]).execute()
    known = {row.id: row for row in Task.select().where(Task.id.in_([task.id for task in tasks]))}
    merge(LOOKUP, [_said_by_lookup(task, known[task.id]) for task in tasks]).execute()
    Lookup.insert_many([_lookup(task, runs[task.id]) for task in tasks]).execute()


def _said_by_callback(task: PastTask) -> CallbackRow:
    return evidence.of_callback(read_callback(task.callback), task.ref, task.done_at, TIMETABLE, confirm=True)


def _said_by_lookup(task: PastTask, known: Task) -> LookupRow:
    known.leased_until = known.next_lookup_at  # as if it had been claimed
    return evidence.of_lookup(known, Answer(read_item(task.item())), task.answered_at, PATIENCE, ())


def _delivery(task: PastTask) -> dict[str, Any]:
    body = task.callback
    return {
        "uid": f"past-{task.id}",
        "task": task.id,
        "received_at": task.done_at,
        "verdict": read_callback(body).status,
        "ref": task.ref,
        "remote_addr": SENDER,
        "headers": json.dumps(HEADERS),
        "body": body,
        "size": len(body),
        "digest": hashlib.sha256(body).digest(),
    }


def _lookup(task: PastTask, run_id: int) -> dict[str, Any]:
    result = read_item(task.item())
    return {
        "task": task.id,
        "run": run_id,
        "asked_at": task.asked_at,
        "answered_at": task.answered_at,
        "verdict": result.status,
        "progress": result.progress,
    }


def _insert_run(task: PastTask) -> int:
    settled = int(task.lost or task.disputed)
    return int(
        ReconcileRun.insert(
            reconciler=_RECONCILER,
            started_at=task.asked_at,
            finished_at=task.answered_at + timedelta(milliseconds=20),
            **{"due": 1, "asked": 1, "settled": settled, "calls": 1},
        ).execute()
    )
