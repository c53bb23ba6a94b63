"""Recognises Heroku, Render and Fly by their environment variables, and which files last there."""

import os.path
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Characters that `/proc/mounts` escapes because they would break its columns.
_ESCAPES = {r"\040": " ", r"\011": "\t", r"\012": "\n", r"\134": "\\"}
OF_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}


@dataclass(frozen=True, slots=True)
class Platform:
    """A hosting platform.

    `proxies` is how many proxies stand in front of the web process and append to X-Forwarded-For. `remedy` is
    the command that creates a lasting database. `has_volumes` tells whether a file can outlive a restart.
    """

    name: str
    proxies: int
    public_url: str | None
    remedy: str
    has_volumes: bool


def platform_of(environ: Mapping[str, str]) -> Platform | None:
    """Return the platform whose variables are set; None on any other machine."""
    if environ.get("DYNO"):
        domain = environ.get("HEROKU_APP_DEFAULT_DOMAIN_NAME")  # with the feature runtime-dyno-metadata
        remedy = "heroku addons:create heroku-postgresql:essential-0"
        return Platform("Heroku", 1, _https(domain), remedy, has_volumes=False)
    if environ.get("RENDER"):
        remedy = "add a database to render.yaml, or a disk"
        return Platform("Render", 0, environ.get("RENDER_EXTERNAL_URL"), remedy, has_volumes=True)
    if app := environ.get("FLY_APP_NAME"):
        # Fly's proxy appends two addresses: first the client's, then the app's own.
        remedy = "fly mpg create, then fly mpg attach <its id>"
        return Platform("Fly", 2, _https(f"{app}.fly.dev"), remedy, has_volumes=True)
    return None


def read_mounts() -> str:
    """Return /proc/mounts; "" on a system without it."""
    path = Path("/proc/mounts")
    return path.read_text() if path.exists() else ""


def is_on_volume(path: str, mounts: str) -> bool:
    """Tell whether a file is on a mounted volume, which outlives the machine. `mounts` is /proc/mounts."""
    point, kind = mount_of(path, mounts)
    return point != "/" and kind not in OF_MEMORY


def mount_of(path: str, mounts: str) -> tuple[str, str]:
    """Return the mount point that holds a file, and its kind of file system. `mounts` is /proc/mounts."""
    real = os.path.realpath(path)
    # Of several mounts at one point the last counts: it hides the others.
    kinds = {"/": "rootfs"}
    for line in mounts.splitlines():
        _, point, kind, *_ = line.split(" ")
        kinds[_unescaped(point)] = kind
    point = max((point for point in kinds if _holds(point, real)), key=len)
    return point, kinds[point]


def _https(domain: str | None) -> str | None:
    return f"https://{domain}" if domain else None


def _holds(point: str, path: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _unescaped(text: str) -> str:
    for escape, character in _ESCAPES.items():
        text = text.replace(escape, character)
    return text
