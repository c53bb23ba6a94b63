"""The families of metrics: their names, labels and values. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from receiver.ledger.counters import BOUNDS, DURATION, LATENESS, RESULTS, histogram
from receiver.ledger.reading.meters import Meters
from receiver.version import VERSION
from receiver.web.disk_room import Room
from receiver.web.watch.facts import Facts
from receiver.web.watch.troubles import KINDS, Trouble

_SETTLERS = ("callback", "lookup")
# The counters that triggers keep: name in the ledger, family, labels, what it counts, and the label values
# that are there from the beginning. A counter that appears with its first event hides it from `increase`.
_COUNTERS = (
    *(
        ("deliveries", "deliveries", ("verdict",), "Callbacks that were stored.", ("unreadable",)),
        ("refusals", "refused_requests", ("kind",), "Requests that were refused.", ("not_kept",)),
        ("runs", "reconcile_runs", ("outcome",), "Runs that ended.", ("good", "failed")),
        ("calls", "upstream_calls", ("outcome",), "Look-up calls.", ("answered", "failed")),
        ("pauses", "upstream_pauses", ("reason",), "Pauses that began.", ("account", "throttled")),
        ("attempts", "forward_attempts", ("outcome",), "Posts to your app.", ("delivered",)),
    ),
    (RESULTS, "results", ("service", "status", "settled_by"), "Results, as the outbox tells them.", ()),
)
_HISTOGRAMS = (
    (DURATION, "task_duration_seconds", "From submission to result."),
    (LATENESS, "result_lateness_seconds", "From upstream's end of a task until we knew its result."),
)
_FORWARDS = ("pending", "delivered", "failed", "resent", "dismissed")


def of_this_process(
    facts: Facts, rooms: Sequence[Room], spool_bytes: int, troubles: Sequence[Trouble]
) -> Iterator[Metric]:
    """Return what is known without the ledger."""
    yield _gauge("build_info", "The version.", {(VERSION,): 1}, ("version",))
    present = {trouble.code for trouble in troubles}
    yield _gauge("trouble", "1 while it lasts.", {(code,): code in present for code in KINDS}, ("code",))
    waiting = float("nan") if facts.spooled is None else facts.spooled
    yield _gauge("spool_deliveries", "Deliveries that wait for the database.", {(): waiting})
    yield _gauge("spool_set_aside", "Deliveries that the database refuses.", {(): facts.set_aside})
    yield _gauge("spool_bytes", "The size of the spool.", {(): spool_bytes})
    free = {(room.path,): room.free for room in rooms}
    yield _gauge("disk_free_bytes", "The room on a disk that is written to.", free, ("path",))


def database_up(is_up: bool) -> Metric:
    """Return whether the ledger could be read."""
    return _gauge("database_up", "1 if the database can be read.", {(): is_up})


def of_the_ledger(facts: Facts, meters: Meters) -> Iterator[Metric]:
    """Return what the ledger tells."""
    yield from _counters(meters.counted)
    yield from _histograms(meters.counted)
    kinds = ("service", "status", "settled_by")
    yield _gauge("tasks", "The tasks that Backstop knows.", meters.tasks, kinds)
    day = facts.last_day
    share = day.missed / day.settled if day.settled else 0
    yield _gauge("missing_callbacks_ratio", "Of the results of the last day, without callback.", {(): share})
    yield _gauge("disputes", "Unacknowledged disputes of the last day.", {(): facts.disputed})
    yield _gauge("tasks_due", "Tasks that are due for a look-up, up to 10,000.", {(): meters.due})
    oldest = meters.oldest_due.total_seconds()
    yield _gauge("tasks_due_oldest_seconds", "Since when the oldest is due.", {(): oldest})
    yield _gauge("database_bytes", "The size of the database.", {(): meters.database_bytes})
    yield from _of_the_reconciler(facts, meters)
    yield from _of_forwards(facts, meters)


def _of_the_reconciler(facts: Facts, meters: Meters) -> Iterator[Metric]:
    seen, good = facts.reconciler_seen_at, meters.last_good_run_at
    text = "When a reconciler last wrote anything."
    yield _gauge("reconciler_seen_timestamp_seconds", text, {(): _unix(seen)} if seen else {})
    text = "When a run last ended well."
    yield _gauge("last_good_run_timestamp_seconds", text, {(): _unix(good)} if good else {})
    paused = {("account",): False, ("throttled",): False}
    if facts.pause is not None:
        paused["account" if facts.pause.account else "throttled",] = True
    yield _gauge("upstream_paused", "1 while upstream may not be asked.", paused, ("reason",))


def _of_forwards(facts: Facts, meters: Meters) -> Iterator[Metric]:
    told = facts.forwards
    known = {(status,): 0.0 for status in _FORWARDS} | meters.counted.get("forwards", {})
    yield _gauge("forwards", "Forwards that are kept.", known, ("status",))
    oldest = told.oldest_waiting_at if told else None
    age = max(facts.now - oldest, timedelta(0)).total_seconds() if oldest else 0
    yield _gauge("forwards_oldest_seconds", "How long the oldest undelivered one has waited.", {(): age})
    yield _gauge("endpoints_held", "Endpoints that are held.", {(): len(told.held) if told else 0})


def _counters(counted: Mapping[str, Mapping[tuple[str, ...], float]]) -> Iterator[Metric]:
    for name, family, labels, text, always in _COUNTERS:
        metric = CounterMetricFamily(f"backstop_{family}", text, labels=labels)
        values = {(value,): 0.0 for value in always} | dict(counted.get(name, {}))
        for key in sorted(values):
            metric.add_metric(key, values[key])
        yield metric


def _histograms(counted: Mapping[str, Mapping[tuple[str, ...], float]]) -> Iterator[Metric]:
    for name, family, text in _HISTOGRAMS:
        metric = HistogramMetricFamily(f"backstop_{family}", text, labels=("settled_by",))
        for settler in _SETTLERS:
            counts, seconds = histogram(counted.get(name, {}), settler)
            metric.add_metric((settler,), buckets=_cumulated(counts), sum_value=seconds)
        yield metric


def _cumulated(counts: Sequence[float]) -> list[tuple[str, float]]:
    bounds = [*map(str, BOUNDS), "+Inf"]
    return [(bound, sum(counts[: place + 1])) for place, bound in enumerate(bounds)]


def _gauge(name: str, text: str, values: Mapping[Any, float], labels: Iterable[str] = ()) -> Metric:
    metric = GaugeMetricFamily(f"backstop_{name}", text, labels=tuple(labels))
    for key in sorted(values):
        metric.add_metric(key, float(values[key]))
    return metric


def _unix(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp()
