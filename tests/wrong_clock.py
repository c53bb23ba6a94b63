"""Runs a module of ours under a clock that a file sets wrong: python -m tests.wrong_clock reconcile --once.

The file is named by WRONG_CLOCK and holds by how many seconds the clock is ahead; it may change at any time.
The monotonic clock stays right, as it does when a machine's clock is set.
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
    """Stands in for `datetime`, whose `now` it tells wrongly."""

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        return real(*arguments, **named)

    @staticmethod
    def now(zone: tzinfo | None = None) -> real:
        return real.now(zone) + _shift()


def main() -> None:
    """Set the clocks of the process wrong, ours and APScheduler's, and run the module."""
    for module in (clock, base, interval):
        module.datetime = WrongDatetime  # type: ignore[attr-defined]
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
