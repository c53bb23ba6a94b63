"""What Backstop is to reach, and whether the results say that it does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.contenders import DATABASES, NOTHING, NOTHING_THREADS, POSTGRESQL, SQLITE, TEXTBOOK, Contender
from bench.figures import Row, median, pick, ratio

Part = Mapping[str, Any]
Judge = Callable[[Part], tuple[str, bool]]  # what was reached, and whether that is enough

REQUESTS, P99 = "requests_per_second", "p99"
STEPS = {
    "nothing_due": "see that nothing is due",
    "claim": "claim 50",
    "apply": "apply 50 answers",
    "first_page": "first page of the list",
    "deep_page": "a page in its middle",
}


@dataclass(frozen=True)
class Target:
    """One of them, and how to judge it by what a part has measured."""

    number: int
    text: str
    part: str
    judge: Judge


def compare(part: Part, field: str, connections: int, one: Contender, other: Contender) -> float:
    """Return the median ratio of two contenders at so many connections."""
    rows = pick(part["rounds"], connections=connections)
    return ratio(field, pick(rows, contender=one.name), pick(rows, contender=other.name))


def stalls_ratio(part: Part, field: str) -> float:
    """Return the median ratio of a load beside stalled clients to the same load alone."""
    rows = part["rounds"]
    return ratio(field, [row for row in rows if row["stalling"]], pick(rows, stalling=0))


def hop_ratio(part: Part, kind: str) -> float:
    """Return how many times as long a submission takes through Backstop as to upstream itself."""
    rows = pick(part["hop"], database=kind)
    return ratio("p50", pick(rows, way="submitted"), pick(rows, way="direct"))


def lookups_share(rows: Sequence[Row], contender: Contender, connections: int, *, again: bool) -> float:
    """Return a contender's look-ups a second, of the requests that a Flask that does nothing answers."""
    rows = pick(rows, connections=connections)
    ours = pick(rows, contender=contender.name, again=again)
    return ratio(REQUESTS, ours, pick(rows, contender=NOTHING.name))


def held_ratio(rows: Sequence[Row], kind: str) -> float:
    """Return the median ratio of callbacks' p99 beside submissions that wait to that without them."""
    rows = pick(rows, database=kind)
    return ratio(P99, [row for row in rows if row["held"]], pick(rows, held=0))


def share_of_bound(part: Part, kind: str) -> float:
    """Return how near reconciling came to the bound of its calls in flight."""
    return float(part["bound_seconds"] / median(pick(part["rounds"], database=kind), "seconds"))


def memory_growth(part: Part, kind: str) -> float:
    """Return how many times as much memory reconciling took with many due tasks as with few."""
    few, many = pick(part["memory"], database=kind)
    return float(many["peak_bytes"] / few["peak_bytes"])


def ledgers(part: Part, kind: str) -> Sequence[Row]:
    """Return what was measured on the empty ledger, the small and the large one."""
    return pick(part["ledgers"], database=kind)


def _page_growth(part: Part, kind: str) -> float:
    empty, _, large = (row["pages"] for row in ledgers(part, kind))
    return float(max(large[page] / empty[page] for page in empty))


def _step_growth(part: Part, kind: str) -> float:
    _, small, large = ledgers(part, kind)
    return float(max(large[step] / small[step] for step in STEPS))


def _at_least(least: float, one: Contender, other: Contender) -> Judge:
    def judge(part: Part) -> tuple[str, bool]:
        reached = compare(part, REQUESTS, 64, one, other)
        return f"{reached:.2f}", reached >= least

    return judge


def _p99(other: Contender) -> Judge:
    ours: dict[str, Contender] = {one.database: one for one in (SQLITE, POSTGRESQL)}
    return _at_most(1.5, lambda part, kind: compare(part, P99, 16, ours[kind], other))


def _at_most(most: float, measure: Callable[[Part, str], float], which: str = "") -> Judge:
    """Return the judge of a figure that must not be greater on either database."""

    def judge(part: Part) -> tuple[str, bool]:
        values = [measure(part, kind) for kind in DATABASES]
        return which + _both(values), max(values) <= most

    return judge


def _reconciled(part: Part) -> tuple[str, bool]:
    shares = [share_of_bound(part, kind) for kind in DATABASES]
    return _both(shares), min(shares) >= 0.95


def _both(values: Sequence[float]) -> str:
    return ", ".join(f"{title} {value:.2f}" for title, value in zip(DATABASES.values(), values, strict=True))


def _looked_up(part: Part) -> tuple[str, bool]:
    shares = [
        min(
            lookups_share(part["lookups"], one, connections, again=again)
            for connections in (16, 64)
            for again in (True, False)
        )
        for one in (SQLITE, POSTGRESQL)
    ]
    return "the slowest: " + _both(shares), min(shares) >= 0.6


def _kept(part: Part) -> tuple[str, bool]:
    missing = sum(row["missing"] for row in part["kills"])
    return f"{missing} missing after {len(part['kills'])} kills", missing == 0


def _synced(part: Part) -> tuple[str, bool]:
    alone = pick(part["fsyncs"], connections=1)
    least = min(row["fsyncs"] / max(row["acknowledged"], 1) for row in alone)
    return f"{least:.2f} fsyncs for each", least >= 1


def _found_by_index(part: Part) -> tuple[str, bool]:
    found = {title: part["plans"][kind]["by_index"] for kind, title in DATABASES.items()}
    words = [f"{title} {'yes' if by_index else 'no'}" for title, by_index in found.items()]
    return ", ".join(words), all(found.values())


def _stalled(part: Part) -> tuple[str, bool]:
    p99, requests = stalls_ratio(part, P99), stalls_ratio(part, REQUESTS)
    if requests == 0:
        return "nobody else was answered", False
    return f"p99 {p99:.2f}, requests a second {requests:.2f}", p99 <= 3 and requests >= 1 / 3


_ON_SQLITE = "SQLite, 64 connections: requests a second, at least"
_P99_AT_16 = "16 connections: p99 at most 1.5 times that of"
_WORST = "the one that grows most: "
TARGETS = (
    Target(1, f"{_ON_SQLITE} 0.40 of Flask that does nothing", "hot-path", _at_least(0.40, SQLITE, NOTHING)),
    Target(1, f"{_ON_SQLITE} 5.5 times textbook Flask", "hot-path", _at_least(5.5, SQLITE, TEXTBOOK)),
    Target(
        1,
        f"{_ON_SQLITE} 20 times textbook Flask, where an fsync takes 2 ms longer",
        "slow-fsync",
        _at_least(20, SQLITE, TEXTBOOK),
    ),
    Target(
        2,
        "PostgreSQL, 64 connections: requests a second, at least 0.40 of Flask that does nothing",
        "hot-path",
        _at_least(0.40, POSTGRESQL, NOTHING),
    ),
    Target(3, f"{_P99_AT_16} Flask that does nothing", "hot-path", _p99(NOTHING)),
    Target(3, f"{_P99_AT_16} Flask that does nothing on threads", "hot-path", _p99(NOTHING_THREADS)),
    Target(
        4, "`kill -9` of any process under load: nothing that was acknowledged is missing", "verify", _kept
    ),
    Target(4, "One connection: at least one fsync behind each acknowledgement", "verify", _synced),
    Target(5, "Reconciling: at least 0.95 of what its calls in flight allow", "reconcile", _reconciled),
    Target(
        5,
        "Reconciling: memory at most 1.1 times as much with 20 times the due tasks",
        "reconcile",
        _at_most(1.1, memory_growth),
    ),
    Target(
        6,
        "Every page: at most 3 times as long as with an empty ledger",
        "scale",
        _at_most(3, _page_growth, _WORST),
    ),
    Target(
        6,
        "Every step: at most 3 times as long as with a hundredth of the tasks",
        "scale",
        _at_most(3, _step_growth, _WORST),
    ),
    Target(6, "Whether anything is due is found out by the indexes of what is due", "scale", _found_by_index),
    Target(
        7,
        "100 clients that stall in the middle of a body: p99 of others at most 3 times that without them,"
        " and at least a third of their requests a second",
        "stalls",
        _stalled,
    ),
    Target(
        8,
        "Gateway, 16 in flight, an upstream that answers in 50 ms: at most 1.15 times direct",
        "gateway",
        _at_most(1.15, hop_ratio),
    ),
    Target(8, "Gateway: look-ups a second, at least 0.60 of Flask that does nothing", "gateway", _looked_up),
    Target(
        8,
        "200 submissions that wait: p99 of callbacks at most 1.5 times that without them",
        "gateway",
        _at_most(1.5, lambda part, kind: held_ratio(part["held"], kind)),
    ),
)
