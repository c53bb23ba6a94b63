"""Bugs, planted one at a time: what the checks of a world are worth."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from peewee import SQL

from receiver.ledger import claims, merge, outbox, patience, pauses, record, store
from receiver.ledger.engine.db import writing
from receiver.ledger.models import Delivery, Task, database
from receiver.spool import files, replay
from reconcile import asking, calls, discover
from tests.simulation import watched
from tests.simulation.world import Outcome, run

Bug = Callable[[], AbstractContextManager[Any]]


def find(bug: Bug, seeds: Sequence[int]) -> Outcome | None:
    """Return the first world among the seeds that fails with the bug; None if none does."""
    with bug():
        return next((outcome for seed in seeds if (outcome := run(seed)).failures), None)
