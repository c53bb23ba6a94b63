"""Checks the ledger's books: nothing acknowledged is missing, and events and totals are those of the changes."""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from tests.simulation.failure import FINAL, Failure

if TYPE_CHECKING:
    from tests.simulation.world import World

_Life = tuple[str, int]  # a task, and how often it had been deleted before


def broken(ledger: sqlite3.Connection) -> list[Failure]:
    return [
        Failure(row["what"], row["id"], f"at {row['at']:.3f} s")
        for row in ledger.execute("SELECT * FROM broken")
    ]


def missing(
    world: "World", tasks: dict[str, sqlite3.Row], gone: Collection[str], ledger: sqlite3.Connection
) -> list[Failure]:
    deleted = {uid for (uid,) in ledger.execute("SELECT uid FROM gone_delivery")}
    kept = defaultdict(list)
    for row in ledger.execute("SELECT uid, body, problem FROM delivery"):
        kept[row["uid"]].append(row)
    wrong = []
    for uid, (task_id, body) in world.application.acknowledged.items():
        rows = kept[uid]
        if not rows and uid in deleted:
            continue
        if len(rows) != 1 or not (
            rows[0]["body"] == body or (body.startswith(rows[0]["body"]) and rows[0]["problem"])
        ):
            wrong.append(
                Failure("an acknowledged callback is missing", task_id, f"{uid} is kept {len(rows)} times")
            )
    for task_id in world.application.registered - gone:
        if task_id not in tasks or tasks[task_id]["registered_at"] is None:
            wrong.append(Failure("an acknowledged registration is missing", task_id, ""))
    return wrong


def events(ledger: sqlite3.Connection, changes: list[sqlite3.Row]) -> list[Failure]:
    expected: dict[_Life, list[tuple[str, str]]] = defaultdict(list)
    for row in changes:
        said = expected[row["id"], row["life"]]
        if row["new_status"] != row["old_status"] and row["new_status"] != "pending":
            said.append((f"task.{row['new_status']}", row["new_status"]))
        if _is_disputed(row, "new") and not _is_disputed(row, "old"):
            said.append(("task.disputed", row["new_status"]))
        if _is_confirmed(row):
            said.append(("task.confirmed", row["new_status"]))
    rows = ledger.execute("SELECT * FROM written ORDER BY id").fetchall()
    written: dict[_Life, list[tuple[str, str]]] = defaultdict(list)
    last: dict[_Life, int] = {}
    wrong = []
    for row in rows:
        life = row["task_id"], row["life"]
        told = written[life]
        # A confirmation shares the number of the only result before it.
        is_shared = row["type"] == "task.confirmed" and [type_ for type_, _ in told] == [
            f"task.{row['status']}"
        ]
        told.append((row["type"], row["status"]))
        # Some of a life before may have been left when this one began.
        begins_at = row["sequence"] - 1 if row["life"] else 0
        last[life] = last.get(life, begins_at) + (not is_shared)
        if row["sequence"] != last[life]:
            wrong.append(Failure("an event's sequence has a gap", row["task_id"], str(row["sequence"])))
    for life in sorted({*expected, *written}):
        if expected[life] != written[life]:
            text = f"told {written[life]}, but it changed {expected[life]}"
            wrong.append(Failure("events differ from the changes", life[0], text))
    return wrong


def reader(world: "World", ledger: sqlite3.Connection) -> list[Failure]:
    """Return what the reader of the outbox has missed among what is kept, and whether it read out of order."""
    read = [event.id for event in world.application.events]
    kept = {number for (number,) in ledger.execute("SELECT id FROM event")}
    written = {number for (number,) in ledger.execute("SELECT id FROM written")}
    if read == sorted({*read}) and kept <= {*read} <= written:
        return []
    return [
        Failure("a reader missed events", None, f"{len(read)} of {len(kept)}, {len(written)} were written")
    ]


def _is_confirmed(row: sqlite3.Row) -> bool:
    is_new = row["new_lookup_status"] in FINAL and row["old_lookup_status"] not in FINAL
    return is_new and row["new_status"] == row["old_status"] and not _is_disputed(row, "new")


def _is_disputed(row: sqlite3.Row, when: str) -> bool:
    callback, lookup = row[f"{when}_callback_status"], row[f"{when}_lookup_status"]
    doubted = row[f"{when}_doubted_at"] is not None and lookup not in FINAL
    return doubted or {callback, lookup} == set(FINAL)


def tally(ledger: sqlite3.Connection, tasks: Iterable[sqlite3.Row]) -> list[Failure]:
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
