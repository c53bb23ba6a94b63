"""What happened in a world, in order; a short part of it tells about one task."""

from dataclasses import dataclass, field

from tests.simulation.clock import WorldClock


@dataclass(slots=True)
class Trace:
    """Notes with their moments. A note without ids is about all tasks."""

    clock: WorldClock
    notes: list[tuple[float, str, tuple[str, ...]]] = field(default_factory=list)

    def note(self, text: str, *ids: str) -> None:
        self.notes.append((self.clock.passed, text, ids))

    def about(self, task_id: str | None, most: int = 60) -> list[str]:
        """Return the last notes about a task and about all of them, one a line."""
        told = [(at, text) for at, text, ids in self.notes if not ids or task_id in ids]
        left_out = [f"… {len(told) - most} earlier notes"] if len(told) > most else []
        return left_out + [f"{_hours(at)}  {text}" for at, text in told[-most:]]


def _hours(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes // 60):3}:{int(minutes % 60):02}:{rest:06.3f}"
