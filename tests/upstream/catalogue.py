"""The services and operations that the stand-in knows. Facts only: no clock, no network."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """How one service words its answers, where services differ."""

    name: str
    tells_trace: bool = False  # an accepted submission is answered with its trace id too
    stamps: bool = False  # a finished item has `started_at`, `finished_at` and its duration
    has_type: bool = True
    has_progress: bool = False
    masks_async: bool = False  # the item of an `async` request has a callback URL of upstream's own
    is_flat: bool = False  # an item is the bare result; one id a look-up; 404 for an unknown one


@dataclass(frozen=True)
class Operation:
    """One path that takes submissions."""

    service: Service
    type: str
    at_once: bool = False  # answered with the result at once; nothing is kept
    calls_back: bool = True  # understands `callback_url` and `async`

    @property
    def path(self) -> str:
        """Return the path of submissions."""
        return f"/{self.service.name}/{self.type}"


MIDJOURNEY = Service("midjourney", tells_trace=True, stamps=True, has_progress=True)
SUNO = Service("suno")
VEO = Service("veo")
FLUX = Service("flux", has_type=False)
SEEDANCE = Service("seedance", stamps=True, masks_async=True)
DIGITAL_HUMAN = Service("digital-human", is_flat=True)
SERVICES = {service.name: service for service in (MIDJOURNEY, SUNO, VEO, FLUX, SEEDANCE, DIGITAL_HUMAN)}


def _at_once(service: Service, *names: str) -> list[Operation]:
    return [Operation(service, name, at_once=True, calls_back=False) for name in names]


_OPERATIONS = [
    *(Operation(MIDJOURNEY, name) for name in ("imagine", "edits", "videos")),
    # Documented without `callback_url`. Callbacks with descriptions have been seen, so it is not ignored.
    Operation(MIDJOURNEY, "describe", at_once=True),
    *_at_once(MIDJOURNEY, "seed", "shorten", "translate"),
    *(Operation(SUNO, name) for name in ("audios", "wav", "midi", "mp3", "vox")),
    *_at_once(SUNO, "lyrics", "mashup-lyrics", "style", "mp4", "timing", "persona", "upload"),
    Operation(VEO, "videos"),
    *(Operation(FLUX, name) for name in ("images", "videos")),
    Operation(SEEDANCE, "videos"),
    Operation(DIGITAL_HUMAN, "videos"),
]
OPERATIONS = {operation.path: operation for operation in _OPERATIONS}
TASKS_PATHS = {f"/{service.name}/tasks": service for service in SERVICES.values()}
