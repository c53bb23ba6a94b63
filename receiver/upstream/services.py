"""Upstream's services: a row for each, and the only place that names one. Pure.

See "Where new things go" in docs/design.md.
"""

from dataclasses import dataclass

from receiver.upstream.forms import PLAIN, Form


@dataclass(frozen=True, slots=True)
class Service:
    """One of upstream's products. `tasks_path` is where the Tasks API answers about its tasks."""

    name: str
    tasks_path: str
    form: Form = PLAIN


DEFAULT = Service(
    "midjourney",
    tasks_path="/midjourney/tasks",
    form=Form(runs_empty=True, finished_adds=("success", "image_url", "video_urls", "error")),
)
SERVICES = {service.name: service for service in (DEFAULT,)}
