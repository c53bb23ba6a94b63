"""What Heroku and Fly tell a process about themselves, in its environment. Pure."""

import os.path
from collections.abc import Mapping
from dataclasses import dataclass

# How `/proc/mounts` writes what would break its columns.
_ESCAPES = {r"\040": " ", r"\011": "\t", r"\012": "\n", r"\134": "\\"}
_OF_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}


@dataclass(frozen=True, slots=True)
class Platform:
    """Where a deployment runs. `remedy` is what to type there for a database that lasts.

    `proxies` is how many of its proxies stand in front of the web process and append to X-Forwarded-For.
    """

    name: str
    proxies: int
    public_url: str | None
    remedy: str


def platform_of(environ: Mapping[str, str]) -> Platform | None:
    """Return the platform whose variables are set; None elsewhere, as on one's own machine."""
    if environ.get("DYNO"):
        domain = environ.get("HEROKU_APP_DEFAULT_DOMAIN_NAME")  # with the feature runtime-dyno-metadata
        remedy = "heroku addons:create heroku-postgresql:essential-0"
        return Platform("Heroku", 1, _https(domain), remedy)
    if app := environ.get("FLY_APP_NAME"):
        # Fly's proxy appends the client's address, and then the app's own.
        remedy = (
            "fly mpg create, then fly mpg attach <its id>; or mount a volume at /data and set"
            " DATABASE_URL=sqlite:////data/backstop.db"
        )
        return Platform("Fly", 2, _https(f"{app}.fly.dev"), remedy)
    return None


def is_on_volume(path: str, mounts: str) -> bool:
    """Return whether a file lies on a mounted disk, by the text of /proc/mounts: it outlives the machine."""
    real = os.path.realpath(path)
    # The last of those that hold it: a later mount hides an earlier one.
    kinds = {"/": "rootfs"}
    for line in mounts.splitlines():
        _, point, kind, *_ = line.split(" ")
        kinds[_unescaped(point)] = kind
    point = max((point for point in kinds if _holds(point, real)), key=len)
    return point != "/" and kinds[point] not in _OF_MEMORY


def _https(domain: str | None) -> str | None:
    return f"https://{domain}" if domain else None


def _holds(point: str, path: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _unescaped(text: str) -> str:
    for escape, character in _ESCAPES.items():
        text = text.replace(escape, character)
    return text
