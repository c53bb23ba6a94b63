"""Medians and ratios of what was measured, and Markdown tables of them."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def pick(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    """Return the rows that have these values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def median(rows: Sequence[Row], field: str) -> float:
    """Return the median of a field."""
    return float(statistics.median([row[field] for row in rows]))


def ratio(field: str, rows: Sequence[Row], others: Sequence[Row]) -> float:
    """Return the median, over all rounds, of one's field divided by the other's.

    What a round compares was measured together: a shared machine is faster at one time than at another.
    """
    beside = {row["round"]: row[field] for row in others}
    ratios = [row[field] / beside[row["round"]] for row in rows if beside[row["round"]]]
    return float(statistics.median(ratios or [0.0]))


def median_ms(step: Callable[[], object], repeats: int) -> float:
    """Return the median time of a step in ms."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Return a table. Its first columns hold `texts` and are set on the left, all others on the right."""
    marks = ["---" if column < texts else "---:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks, *rows))


def number(value: float) -> str:
    """Return a number with three digits or more."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def mib(size: float) -> str:
    """Return a size in bytes as MiB."""
    return f"{size / 2**20:.1f}"
