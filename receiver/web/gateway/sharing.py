"""Shares upstream's answers for some seconds among callers of this process who ask the same."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

# Clients look at lists each 5 s.
SHARED_FOR_SECONDS = 8.0
# While upstream does not answer, an older answer is better than none.
_KEPT_FOR_SECONDS = 600.0
_MOST = 100
_LARGEST = 2**20  # bytes

Answer = TypeVar("Answer", bound=bytes)


@dataclass(eq=False, slots=True)
class _Asked(Generic[Answer]):
    """One question, and what came of it."""

    answered: threading.Event = field(default_factory=threading.Event)
    answer: bytes | None = None
    at: float = 0.0  # monotonic
