"""What a run counts."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """What a run counted: tasks, except for `calls` and `errors`, which are calls to upstream.

    Each task that was asked about is settled, confirmed, running, absent or unanswered.
    """

    due: int = 0
    asked: int = 0
    settled: int = 0
    confirmed: int = 0
    running: int = 0
    absent: int = 0
    calls: int = 0
    errors: int = 0
    error: str | None = None
    clock_ahead: int | None = None  # seconds: of our clock before upstream's

    @property
    def unanswered(self) -> int:
        """How many tasks were asked about in calls that failed."""
        return self.asked - self.settled - self.confirmed - self.running - self.absent

    def __str__(self) -> str:
        names = ("due", "asked", "settled", "confirmed", "running", "absent", "unanswered", "calls", "errors")
        line = ", ".join(f"{getattr(self, name)} {name}" for name in names)
        return f"{line}; last error: {self.error}" if self.error else line
