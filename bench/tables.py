"""Writes Markdown tables."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Return a table. Its first columns hold `texts` and are set on the left, all others on the right."""
    marks = ["---" if column < texts else "---:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks, *rows))


def number(value: float) -> str:
    """Return a number with as many digits as say something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def several(values: Iterable[float]) -> str:
    """Return numbers in one cell."""
    return " / ".join(number(value) for value in values)


def mib(size: float) -> str:
    """Return a size in bytes as MiB."""
    return f"{size / 2**20:.1f}"
