"""Runs one of our modules under a wrong clock: python -m tests.wrong_clock reconcile --once.

WRONG_CLOCK names a file that holds by how many seconds the clock is ahead. It may change at any time. The
monotonic clock stays right, as it does when a machine's clock is set.
"""

import os
import runpy
import sys
from datetime import datetime as real
from datetime import timedelta, tzinfo
from pathlib import Path
from typing import Any

from apscheduler.schedulers import base
from apscheduler.triggers import interval

from receiver import clock


def _shift() -> timedelta:
    return timedelta(seconds=float(Path(os.environ["WRONG_CLOCK"]).read_text()))


class _AnyDatetime(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, real)

    def __getattr__(cls, name: str) -> Any:
        return getattr(real, name)


class WrongDatetime(metaclass=_AnyDatetime):
    """Replaces `datetime`, with a wrong `now`."""

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        return real(*arguments, **named)

    @staticmethod
    def now(zone: tzinfo | None = None) -> real:
        return real.now(zone) + _shift()


def main() -> None:
    """Make the process's clocks wrong, ours and APScheduler's, and run the module."""
    for module in (clock, base, interval):
        module.datetime = WrongDatetime  # type: ignore[attr-defined]
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
