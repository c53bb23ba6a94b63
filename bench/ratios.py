"""Medians of rounds, and medians of the ratios within each round: what is compared was measured together."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def pick(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    """Return the rows that have these values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def median(rows: Sequence[Row], field: str) -> float:
    """Return the median of a field; 0 where there are no rows."""
    return float(statistics.median([row[field] for row in rows] or [0.0]))


def ratio(field: str, rows: Sequence[Row], others: Sequence[Row]) -> float:
    """Return the median, over the rounds that both have, of one's field divided by the other's."""
    beside = {row["round"]: row[field] for row in others}
    ratios = [row[field] / beside[row["round"]] for row in rows if beside.get(row["round"])]
    return float(statistics.median(ratios or [0.0]))
