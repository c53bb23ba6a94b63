"""Deliveries that an older version received, which could not read them; and reading them again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from receiver.clock import utcnow
from receiver.ledger import record as recording
from receiver.ledger import rereading
from receiver.ledger.models import Delivery
from receiver.ledger.rereading import Chosen, Reread, Rules
from receiver.upstream.results import LARGEST, Unreadable
from tests.factories import DAY, TIMETABLE, record

HOUR = timedelta(hours=1)


@contextmanager
def older_version(read: Callable[..., Any] | None = None) -> Iterator[None]:
    """Receive callbacks as a version does that cannot read any, or that reads them with `read`."""

    def fail(*_: Any) -> Any:
        raise Unreadable("no_task_id", "The body has no task_id.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "read_callback", read or fail)
        yield


def received(payload: bytes, ago: timedelta = HOUR, **fields: Any) -> int:
    """Record a callback that the older version cannot read, and return its delivery's id."""
    with older_version():
        record(payload, utcnow() - ago, **fields)
    return newest().id


def newest() -> Delivery:
    return Delivery.select().order_by(Delivery.id.desc()).get()


def reread(keep: bool = True, confirm: bool = False, ago: timedelta = DAY, **chosen: Any) -> list[Reread]:
    """Read deliveries again, those of the last day where nothing else is chosen."""
    wanted = Chosen(**{"since": utcnow() - ago, "until": utcnow()} | chosen)
    return list(rereading.reread(wanted, Rules(TIMETABLE, confirm, LARGEST), keep=keep))
