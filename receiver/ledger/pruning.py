"""Deletes old rows in steps so short that no callback waits long for one, and rests between them.

A step is one transaction of some milliseconds. SQLite has one writer: callbacks wait for a step, and have
the turn to write while pruning rests. What is deleted is gone, so a later run goes on where one was stopped.

See "What is kept, and for how long" in docs/operating.md.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from receiver.ledger.engine.db import writing
from receiver.ledger.models import database
from receiver.ledger.old import Kind, Old, kinds_of

STEP_SECONDS = 0.005
_REST = 4  # times as long as a step took
_CHUNK = 10  # rows a statement: after each a step may end, also when rows are megabytes large


class Step(NamedTuple):
    """What a step deleted: rows of one kind."""

    kind: str
    deleted: int


def prune(old: Old, stop: threading.Event) -> Iterator[Step]:
    """Delete what is old, and yield each step once it is durable. Set `stop` to end it between two steps.

    Any number of processes may prune at once.
    """
    for kind in kinds_of(old):
        for ids in _portions(kind, old):
            while ids and not stop.is_set():
                began = time.monotonic()
                done, deleted = _step(kind, old, ids)
                took = time.monotonic() - began
                yield Step(kind.name, deleted)
                # Where none may go, others hold these, or have deleted them: look on behind the portion.
                ids = ids[done:] if deleted else ()
                stop.wait(took * _REST)
            if stop.is_set():
                return


def prune_all(old: Old, stop: threading.Event) -> Counter[str]:
    """Delete what is old, and return how many rows of each kind."""
    deleted: Counter[str] = Counter()
    for step in prune(old, stop):
        deleted[step.kind] += step.deleted
    return deleted


def count_old(old: Old) -> Iterator[Step]:
    """Yield how many rows of each kind would be deleted, portion by portion, and delete none.

    What hangs on tasks alone, events and submissions, is not counted: it goes with them.
    """
    for kind in kinds_of(old):
        for ids in _portions(kind, old):
            yield Step(kind.name, len(ids))


def _portions(kind: Kind, old: Old) -> Iterator[Sequence[Any]]:
    place: Any = None
    while True:
        with database.connection_context():
            ids, place = kind.find(old, place)
        yield ids
        if place is None:
            return


def _step(kind: Kind, old: Old, ids: Sequence[Any]) -> tuple[int, int]:
    """Delete until the time is up. Return how many ids were looked at, and how many rows are gone."""
    done = deleted = 0
    with writing():
        until = time.monotonic() + STEP_SECONDS
        while done == 0 or (done < len(ids) and time.monotonic() < until):
            some = ids[done : done + _CHUNK]
            deleted += kind.delete(old, some)
            done += len(some)
    return done, deleted
