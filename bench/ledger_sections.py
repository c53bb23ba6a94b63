"""What the report says of the parts that look at ledgers and processes."""

from collections.abc import Sequence
from typing import Any

from bench.ratios import Row, median, pick
from bench.tables import mib, number, table
from bench.targets import STEPS, ledgers, memory_growth, share_of_bound

Part = dict[str, Any]

_DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
_STEP_NAMES = {
    "nothing_due": "see that nothing is due",
    "claim": "claim 50",
    "apply": "apply 50 answers",
    "first_page": "first page of the list",
    "deep_page": "a page in its middle",
}


def reconcile(part: Part) -> str:
    """Tell of the reconciler's speed and memory."""
    rows = []
    for kind, title in _DATABASES.items():
        few, many = pick(part["memory"], database=kind)
        seconds = median(pick(part["rounds"], database=kind), "seconds")
        memory = (mib(few["peak_bytes"]), mib(many["peak_bytes"]), number(memory_growth(part, kind)))
        rows.append(
            (title, number(seconds), number(share_of_bound(part, kind)), *memory, number(many["seconds"]))
        )
    few, many = part["memory"][0]["due"], part["memory"][1]["due"]
    head = (
        "",
        f"seconds for {few:,}",
        "of the bound",
        f"MiB with {few:,}",
        f"MiB with {many:,}",
        "times as much",
        f"seconds for {many:,} at once",
    )
    return (
        "Batches of 50, 8 calls in flight, upstream answers each after 200 ms that its tasks are finished: so"
        f" {few:,} due tasks take {part['bound_seconds']:.2f} s at least. The memory is the most the"
        " process had, with an upstream that answers at once.\n\n" + table(head, rows)
    )


def scale(part: Part) -> str:
    """Tell of the steps' times by the number of tasks."""
    sizes = [row["tasks"] for row in ledgers(part, "sqlite")]
    head = ["ms", *(f"{title}, {size:,}" for title in _DATABASES.values() for size in sizes)]
    rows = [
        (_STEP_NAMES[step], *(_ms(row, step) for kind in _DATABASES for row in ledgers(part, kind)))
        for step in STEPS
    ]
    pages = [
        (name, *(number(row["pages"][name]) for kind in _DATABASES for row in ledgers(part, kind)))
        for name in ledgers(part, "sqlite")[0]["pages"]
    ]
    plans = "\n\n".join(
        f"{_DATABASES[kind]}, whether anything is due:\n\n```\n{chr(10).join(plan['plan'])}\n```"
        for kind, plan in part["plans"].items()
    )
    return (
        "Medians, by the number of tasks, a tenth of which are due. What stands in a list takes time too: an"
        f" empty ledger has nothing to show.\n\n{table(head, rows)}"
        f"\n\n{table(['page, ms', *head[1:]], pages)}\n\n{plans}"
    )


def cost(part: Part) -> str:
    """Tell of memory, start and storage."""
    rows = []
    for process in ("web", "reconciler"):
        for kind, title in _DATABASES.items():
            some = pick(part["started"], process=process, database=kind)
            rows.append((f"{process}, {title}", number(median(some, "seconds")), *_memory(some)))
    head = ("", "seconds to start", "MiB", "PSS", "MiB in use", "PSS")
    stored = "; ".join(
        f"{_DATABASES[kind]} {size / 1024:.1f} KiB" for kind, size in part["bytes_per_task"].items()
    )
    return (
        "The web process's memory is that of one worker, before and after load; the reconciler's before and"
        f" after its first run.\n\n{table(head, rows)}\n\nOn disk for each task with one callback of 1.2 KB:"
        f" {stored}."
    )


def _ms(row: Row, step: str) -> str:
    return number(row[step]) if step in row else ""


def _memory(rows: Sequence[Row]) -> list[str]:
    return [
        mib(median([row[when] for row in rows], what)) for when in ("idle", "used") for what in ("rss", "pss")
    ]
