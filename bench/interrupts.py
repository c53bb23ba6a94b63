"""Ends the benchmark at Ctrl-C or a plain kill, with everything that it has started."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received: list[int] = []


def stop_on_signals() -> None:
    """Raise KeyboardInterrupt in the main thread when a signal comes."""
    _handle(_raise)


def was_interrupted() -> bool:
    """Tell whether a signal has come: what fails behind it fails because of it."""
    return bool(_received)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a signal wait until the end of the block."""
    before = len(_received)
    _handle(_note)
    try:
        yield
    finally:
        _handle(_raise)
    if len(_received) > before:
        raise KeyboardInterrupt


def _handle(handler: Callable[[int, FrameType | None], Any]) -> None:
    for number in _SIGNALS:
        signal.signal(number, handler)


def _note(number: int, _: FrameType | None) -> None:
    _received.append(number)


def _raise(number: int, frame: FrameType | None) -> None:
    _note(number, frame)
    raise KeyboardInterrupt
