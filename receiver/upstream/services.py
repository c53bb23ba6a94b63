"""Upstream's services: a row for each, and the only place that names one. Pure.

See "Where new things go" in docs/design.md.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Service:
    """One of upstream's products. `tasks_path` is where the Tasks API answers about its tasks."""

    name: str
    tasks_path: str


DEFAULT = Service("midjourney", tasks_path="/midjourney/tasks")
SERVICES = {service.name: service for service in (DEFAULT,)}
