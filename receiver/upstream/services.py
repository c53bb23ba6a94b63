"""Upstream's services: a row for each, and the only place that names one. Pure.

From upstream's specifications and its published clients. A path that stands in no row is relayed as it is.

See "Where new things go" in docs/design.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Lookups(Enum):
    """How the Tasks API is asked about a service's tasks."""

    BATCH = "batch"  # many ids in one call
    SINGLE = "single"  # one id in each call
    NONE = "none"  # not at all: only callbacks tell


@dataclass(frozen=True, slots=True)
class Service:
    """One of upstream's products.

    `tasks_path` is where the Tasks API answers about its tasks, as `lookups` tells. Submissions to
    `callback_paths` understand `callback_url`. Those to `streaming_paths` can answer in JSON lines.
    `id_name` is what a single look-up calls the task's id.
    """

    name: str
    tasks_path: str
    callback_paths: frozenset[str] = frozenset()
    streaming_paths: frozenset[str] = frozenset()
    lookups: Lookups = Lookups.BATCH
    id_name: str = "id"


def _service(
    name: str, callbacks: str, streams: str = "", lookups: Lookups = Lookups.BATCH, id_name: str = "id"
) -> Service:
    """Return a service's row. `callbacks` and `streams` are the last parts of its submission paths."""
    return Service(name, f"/{name}/tasks", _paths(name, callbacks), _paths(name, streams), lookups, id_name)


def _paths(name: str, parts: str) -> frozenset[str]:
    return frozenset(f"/{name}/{part}" for part in parts.split())


DEFAULT = _service("midjourney", "imagine edits videos", streams="imagine videos")
_ROWS = (
    DEFAULT,
    _service("suno", "audios vox wav midi mp3", streams="audios"),
    _service("luma", "videos"),
    _service("flux", "images videos", streams="images videos"),
    _service(
        "kling", "videos motion lip-sync talking-photo apparel goods-studio video-commerce virtual-try-on"
    ),
    _service("hailuo", "videos", streams="videos"),
    _service("veo", "videos extend objects reshoot upsample"),
    _service("sora", "videos"),
    _service("seedance", "videos"),
    _service("seedream", "images"),
    _service("nano-banana", "images"),
    _service("qwen-image", "images"),
    _service("wan", "videos"),
    _service("producer", "audios"),
    _service("fish", "tts"),
    _service("openai", "images/generations images/edits"),
    _service("gemini", "videos", streams="videos"),
    _service("grok", "videos", streams="videos"),
    _service("happyhorse", "videos", streams="videos"),
    _service("minimax", "videos"),
    _service("maestro", "videos"),
    _service("dreamina", "videos", lookups=Lookups.SINGLE),
    _service("digital-human", "videos", lookups=Lookups.SINGLE, id_name="task_id"),
    _service("webextrator", "render extract"),
    _service("headshots", "generate"),
    _service("qrart", "generate"),
    _service("pika", "videos"),
    _service("pixverse", "videos"),
    # No look-up of its tasks is documented.
    _service("kickart", "videos viral-videos template-videos", lookups=Lookups.NONE),
    # Captcha has no row: it never calls back, and upstream charges when a result is read.
)
SERVICES = {service.name: service for service in _ROWS}


def next_service(name: str, in_use: Iterable[str]) -> str | None:
    """Return the service in which to look for a task after `name`; None after the last of those in use."""
    others = sorted({one for one in in_use if one in SERVICES} - {DEFAULT.name})
    order = [DEFAULT.name, *(one for one in others if SERVICES[one].lookups is not Lookups.NONE)]
    following = order[order.index(name) + 1 :] if name in order else []
    return following[0] if following else None


def service_of(path: str) -> Service | None:
    """Return the service that a path of upstream's API belongs to, such as /suno/audios."""
    return SERVICES.get(path.lstrip("/").partition("/")[0])


def takes_callback(path: str) -> bool:
    """Tell whether a submission to this path understands `callback_url`."""
    service = service_of(path)
    return service is not None and path in service.callback_paths
