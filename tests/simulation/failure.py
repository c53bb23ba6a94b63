"""What is told of a world that fails."""

import traceback
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

FINAL = ("failed", "succeeded")
UNEXPECTED = "an unexpected error"


@dataclass(frozen=True, slots=True)
class Failure:
    """What is wrong, and with which task, if it is about one."""

    what: str
    task_id: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.what}: {self.text}" + (f" (task {self.task_id})" if self.task_id else "")


def unexpected(problem: BaseException) -> Failure:
    """Return an error that nothing should raise, with the last of its frames."""
    frames = traceback.extract_tb(problem.__traceback__)[-4:]
    where = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames))
    return Failure(UNEXPECTED, None, f"{type(problem).__name__}: {problem} at {where}")


def digest(notes: Iterable[Any]) -> int:
    """Return a number that two different histories hardly share."""
    return zlib.crc32(repr(list(notes)).encode())
