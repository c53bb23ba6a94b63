"""What a check has found. Pure."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["good", "warning", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. `remedy` is what to do; None where all is good."""

    check: str
    level: Level
    said: str
    remedy: str | None = None


def good(check: str, said: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(check, "good", said)


def warning(check: str, said: str, remedy: str) -> Finding:
    """Return that Backstop works, but less well or less safely than it could."""
    return Finding(check, "warning", said, remedy)


def bad(check: str, said: str, remedy: str) -> Finding:
    """Return that something is broken: results are lost, late or not told."""
    return Finding(check, "bad", said, remedy)
