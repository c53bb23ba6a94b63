"""What must be true of a world: of its ledger in the calm, and of all that happened before."""

import json
import sqlite3
import traceback
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.simulation.calm import ours
from tests.simulation.schedule import HERE
from tests.simulation.works import Work

if TYPE_CHECKING:
    from tests.simulation.world import World

FINAL = ("failed", "succeeded")
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Failure:
    """What is wrong, and with which task, if it is about one."""

    what: str
    task_id: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.what}: {self.text}" + (f" (task {self.task_id})" if self.task_id else "")


def failures(world: "World", ledger: sqlite3.Connection) -> list[Failure]:
    """Return all that is wrong after the calm."""
    tasks = {row["id"]: row for row in ledger.execute("SELECT * FROM task")}
    changes = ledger.execute("SELECT * FROM change ORDER BY number").fetchall()
    return [
        *_broken(ledger),
        *_outcomes(world, tasks, changes),
        *_open(tasks, world),
        *_undiscovered(world, tasks),
        *_missing(world, tasks, ledger),
        *_events(world, ledger, changes),
        *_tally(ledger, tasks.values()),
        *_given_up_too_early(world, ledger, changes),
        *_too_many_calls(world),
        *_asked_twice(world),
        *(Failure("a stop kept a lease", task_id, "it was still claimed") for task_id in world.lost_leases),
    ]


def must_have_released(world: "World") -> bool:
    """Tell whether no claim can be left when the only reconciler has stopped."""
    excuses = {"database", "second_reconciler", "clock_ahead", "clock_behind"}
    return not excuses & world.faults.kinds and world.clock.passed - world.died_at > 1200


def leased(ledger: sqlite3.Connection, now: datetime) -> list[str]:
    """Return the ids of the tasks that are claimed."""
    return [row["id"] for row in ledger.execute("SELECT id FROM task WHERE leased_until > ?", (str(now),))]


def told(problem: BaseException) -> str:
    """Return an error with the last of its frames."""
    frames = traceback.extract_tb(problem.__traceback__)[-4:]
    where = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(problem).__name__}: {problem} at {where}"


def digest(notes: Iterable[Any]) -> int:
    """Return a number that two different histories hardly share."""
    return zlib.crc32(repr(list(notes)).encode())


def _broken(ledger: sqlite3.Connection) -> list[Failure]:
    return [
        Failure(row["what"], row["id"], f"at {row['at']:.3f} s")
        for row in ledger.execute("SELECT * FROM broken")
    ]


def _outcomes(world: "World", tasks: dict[str, sqlite3.Row], changes: list[sqlite3.Row]) -> list[Failure]:
    gave_up = {row["id"]: row["at"] for row in changes if row["new_status"] == "expired"}
    wrong = []
    for work in world.account.works.values():
        task = tasks.get(work.id)
        if task is None:
            continue
        if not work.callback_url.startswith(HERE) and not work.told:
            wrong.append(Failure("a foreign task is in the ledger", work.id, task["status"]))
        allowed = _allowed(world, work, task, gave_up.get(work.id))
        if task["status"] not in allowed:
            wrong.append(
                Failure("not as upstream's truth says", work.id, f"{task['status']}, not {sorted(allowed)}")
            )
        elif _has_other_result(work, task):
            wrong.append(Failure("not upstream's result", work.id, str(task["lookup_response"])))
    return wrong


def _has_other_result(work: Work, task: sqlite3.Row) -> bool:
    if task["lookup_status"] not in FINAL or work.is_mute:
        return False
    return bool(json.loads(task["lookup_response"]) != work.final_body())


def _allowed(world: "World", work: Work, task: sqlite3.Row, gave_up: float | None) -> set[str]:
    """Return the statuses in which a task may end."""
    shows_at = max(work.shows_at, world.faults.calm_at) if work.is_poison else work.shows_at
    told = set(work.told)
    is_known = task["registered_at"] is not None or task["lookup_status"] is not None
    if not is_known:
        told.add("pending")  # it is doubtful, and may wait for days
    if work.is_mute:
        early = gave_up is not None and gave_up < max(work.ends, shows_at)
        return {"succeeded", *told} | ({"expired"} if early or world.account.has_forgotten(work) else set())
    if work.status is None:
        return {"expired", *told}
    if task["lookup_status"] in FINAL:
        return {work.status}
    allowed = {work.status}
    if (gave_up is not None and gave_up < shows_at + 60) or world.account.has_forgotten(work):
        allowed |= {"expired", *told}
    if not is_known or (not world.confirms and told):
        allowed |= {"expired", *told}
    return allowed


def _open(tasks: dict[str, sqlite3.Row], world: "World") -> list[Failure]:
    """Return the known tasks that are still open, or still asked about, after all the calm."""
    wrong = []
    for task in tasks.values():
        if task["registered_at"] is None and task["lookup_status"] is None:
            continue
        if task["status"] == "pending" or task["next_lookup_at"] is not None:
            told = f"{task['status']}, next look-up {task['next_lookup_at']} at {world.clock.now()}"
            wrong.append(Failure("still open after the calm", task["id"], told))
    return wrong


def _undiscovered(world: "World", tasks: dict[str, sqlite3.Row]) -> list[Failure]:
    back = world.pace.gives_up_after.total_seconds() if _has_wrong_clock(world) else world.faults.calm_at
    wrong = []
    for work in ours(world):
        is_old = world.faults.calm_at - work.begins > min(back, world.account.forgets_after - 3600)
        if work.id not in tasks and not is_old:
            wrong.append(Failure("never heard of", work.id, f"submitted at {work.begins:.0f} s"))
    return wrong


def _missing(world: "World", tasks: dict[str, sqlite3.Row], ledger: sqlite3.Connection) -> list[Failure]:
    kept = defaultdict(list)
    for row in ledger.execute("SELECT uid, body, problem FROM delivery"):
        kept[row["uid"]].append(row)
    wrong = []
    for uid, (task_id, body) in world.application.acknowledged.items():
        rows = kept[uid]
        if len(rows) != 1 or not (
            rows[0]["body"] == body or (body.startswith(rows[0]["body"]) and rows[0]["problem"])
        ):
            wrong.append(
                Failure("an acknowledged callback is missing", task_id, f"{uid} is kept {len(rows)} times")
            )
    for task_id in world.application.registered:
        if task_id not in tasks or tasks[task_id]["registered_at"] is None:
            wrong.append(Failure("an acknowledged registration is missing", task_id, ""))
    return wrong


def _events(world: "World", ledger: sqlite3.Connection, changes: list[sqlite3.Row]) -> list[Failure]:
    expected: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in changes:
        if row["new_status"] != row["old_status"] and row["new_status"] != "pending":
            expected[row["id"]].append((f"task.{row['new_status']}", row["new_status"]))
        if _is_disputed(row, "new") and not _is_disputed(row, "old"):
            expected[row["id"]].append(("task.disputed", row["new_status"]))
    rows = ledger.execute("SELECT * FROM event ORDER BY id").fetchall()
    written: dict[str, list[tuple[str, str]]] = defaultdict(list)
    wrong = []
    for row in rows:
        written[row["task_id"]].append((row["type"], row["status"]))
        if row["sequence"] != len(written[row["task_id"]]):
            wrong.append(Failure("an event's sequence has a gap", row["task_id"], str(row["sequence"])))
    for task_id in sorted({*expected, *written}):
        if expected[task_id] != written[task_id]:
            told = f"told {written[task_id]}, but it changed {expected[task_id]}"
            wrong.append(Failure("events differ from the changes", task_id, told))
    if [event.id for event in world.application.events] != [row["id"] for row in rows]:
        wrong.append(
            Failure("a reader missed events", None, f"{len(world.application.events)} of {len(rows)}")
        )
    return wrong


def _is_disputed(row: sqlite3.Row, when: str) -> bool:
    callback, lookup = row[f"{when}_callback_status"], row[f"{when}_lookup_status"]
    doubted = row[f"{when}_doubted_at"] is not None and lookup not in FINAL
    return doubted or {callback, lookup} == set(FINAL)


def _tally(ledger: sqlite3.Connection, tasks: Iterable[sqlite3.Row]) -> list[Failure]:
    names = ("service", "status", "settled_by", "missed", "disputed")
    counted: Counter[tuple[Any, ...]] = Counter()
    for task in tasks:
        missed = task["settled_by"] == "lookup" and task["callback_status"] not in FINAL
        doubted = task["doubted_at"] is not None and task["lookup_status"] not in FINAL
        disputed = doubted or {task["callback_status"], task["lookup_status"]} == set(FINAL)
        counted[task["service"], task["status"], task["settled_by"] or "", int(missed), int(disputed)] += 1
    kept = f"SELECT {', '.join(names)}, SUM(tasks) FROM tally GROUP BY 1, 2, 3, 4, 5"
    tallied = {tuple(row)[:5]: row[5] for row in ledger.execute(kept) if row[5]}
    if tallied == dict(counted):
        return []
    return [Failure("the tally differs from a recount", None, f"{tallied} is not {dict(counted)}")]


def _given_up_too_early(
    world: "World", ledger: sqlite3.Connection, changes: list[sqlite3.Row]
) -> list[Failure]:
    """Return the tasks that were given up sooner than upstream could have been asked for long enough."""
    pauses = [
        (_moment(row["started_at"]), _moment(row["ended_at"]) if row["ended_at"] else datetime.max)
        for row in ledger.execute("SELECT * FROM pause ORDER BY started_at")
    ]
    wrong = []
    for row in changes:
        if row["new_gave_up_at"] is None or row["new_gave_up_at"] == row["old_gave_up_at"]:
            continue
        since, until = _moment(row["old_silent_since"]), _moment(row["new_gave_up_at"])
        waited = until - since - _within(pauses, since, until)
        if waited < world.pace.gives_up_after - _SECOND:
            wrong.append(Failure("given up too early", row["id"], f"after {waited} without pauses"))
        answered = sum(kind == "answer" and at <= row["at"] for at, kind in world.account.answers[row["id"]])
        if answered < 3:
            wrong.append(Failure("given up too early", row["id"], f"after {answered} answers"))
    return wrong


def _within(pauses: list[tuple[datetime, datetime]], since: datetime, until: datetime) -> timedelta:
    total, counted_to = timedelta(0), since
    for start, end in pauses:
        start, end = max(start, counted_to), min(end, until)
        if end > start:
            total, counted_to = total + (end - start), end
    return total


def _too_many_calls(world: "World") -> list[Failure]:
    """Compare each process's calls with its rate: one may have waited for a free thread, one is the first."""
    by_caller: dict[str, list[float]] = defaultdict(list)
    for at, caller in world.account.calls:
        by_caller[caller].append(at)
    for caller, moments in by_caller.items():
        for first, at in enumerate(moments):
            for last in range(first + 2, min(first + 30, len(moments))):
                if last - first + 1 > (moments[last] - at) * world.pace.rate + 3:
                    told = f"{caller}: {last - first + 1} calls in {moments[last] - at:.2f} s"
                    return [Failure("more calls than the rate allows", None, told)]
    return []


def _asked_twice(world: "World") -> list[Failure]:
    """Return the tasks about which two calls asked at once, unless their lease may have ended meanwhile."""
    if _has_wrong_clock(world) or {"stops", "deploys"} & world.faults.kinds:
        return []
    return [
        Failure("asked about twice at once", task_id, told) for task_id, told in world.account.asked_twice
    ]


def _has_wrong_clock(world: "World") -> bool:
    return bool({"clock_ahead", "clock_behind"} & world.faults.kinds)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
