"""The tasks of upstream's account, with their true course; what a look-up sees of one at a moment."""

from dataclasses import dataclass, field
from typing import Any

from tests.upstream.tasks import Json, Plan, final_body, progress_body

BASE = "https://cdn.example.com"


@dataclass(slots=True)
class Work:
    """One task of upstream's. Moments are seconds of the world; a look-up sees the end from `shows_at` on."""

    plan: Plan
    type: str
    callback_url: str
    created_at: float  # Unix
    begins: float
    ends: float = float("inf")  # it never does, if so
    shows_at: float = float("inf")
    is_mute: bool = False  # has a result at its end, and is never called finished
    is_poison: bool = False
    stale_at: float = float(
        "-inf"
    )  # when a look-up last saw it as it was before its end, though it had ended
    trace_id: str = ""
    told: list[str] = field(default_factory=list)  # statuses that others than upstream have told of it

    @property
    def id(self) -> str:
        return self.plan.task_id

    @property
    def status(self) -> str | None:
        """Return its true final state; None if it never has one."""
        if self.ends == float("inf") or self.is_mute:
            return None
        return "failed" if self.plan.failure else "succeeded"

    def final_body(self) -> Json:
        return final_body(self.plan, self.type, self.trace_id, BASE)

    def progress_body(self, percent: int) -> Json:
        return progress_body(self.plan, percent, BASE)

    def item(self, now: float, is_stale: bool = False) -> Json:
        """Return the task object as the Tasks API gives it; a stale one is as it was before the end."""
        item: Json = {
            "id": self.id,
            "_id": self.plan.record_id,
            "type": self.type,
            "created_at": self.created_at,
            "trace_id": self.trace_id,
            "request": {"prompt": self.plan.scenes[0], "callback_url": self.callback_url},
        }
        is_final = now >= self.shows_at and not is_stale and not self.is_mute
        if self.plan.state_style == "word":
            failed = "failed" if self.plan.failure else "finished"
            item["state"] = failed if is_final else "generating"
        if is_final:
            item["response"] = self.final_body()
            item["finished_at"] = round(self.created_at + self.ends - self.begins, 3)
        elif (response := self._running(now)) != "absent":
            item["response"] = response
        if self.is_mute:
            item.pop("state", None)
        return item

    def _running(self, now: float) -> Any:
        if self.is_mute and now >= self.ends:
            return {"task_id": self.id, "image_url": f"{BASE}/images/{self.id}.png"}
        if self.plan.running_response != "partial" or self.type == "describe" or self.is_mute:
            return None if self.plan.running_response == "null" else "absent"
        # Where nothing ends, progress halts, or it would never be given up.
        worked = (now - self.begins) / max(min(self.ends - self.begins, 3600), 1)
        return self.progress_body(max(1, min(90, int(10 * worked) * 10)))
