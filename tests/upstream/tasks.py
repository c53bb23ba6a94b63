"""Draws a task's course from the seed and its submission's number. No clock, no network."""

import random
import uuid
from dataclasses import dataclass
from typing import Any, Literal

from .options import Options

Json = dict[str, Any]
Kind = Literal["progress", "final", "duplicate"]

TYPES = ("imagine", "edits", "videos", "describe")
ACTIONS = [f"{name}{part}" for name in ("upscale", "variation") for part in range(1, 5)]
ACTIONS.insert(4, "reroll")
FAILURES = (
    ("bad_request", "Unrecognized argument(s): `-c`, `x`"),
    ("bad_request", "Image prompt could not be fetched."),
    ("forbidden", "The prompt was blocked by moderation."),
    ("api_error", "fetch failed"),
    ("timeout", "The task took too long and was given up."),
)
SCENES = (
    "A cross-shaped road sign stands in the middle of an outdoor park",
    "A lighthouse at dusk, its lamp just lit, seen from the water",
    "A harbour in fog with three fishing boats at the quay",
    "A cat asleep on a wooden table beside a bowl of lemons",
    "A street sign in an open park, surrounded by trees and grassland",
    "An old tram climbing a steep street after the rain",
    "A signpost under sunlight at the edge of a wheat field",
    "A glass greenhouse at night, lit from within",
)


@dataclass(frozen=True)
class Step:
    """One step of a task, some seconds after its submission."""

    after: float
    kind: Kind
    progress: int = 100


@dataclass(frozen=True)
class Plan:
    """A task's whole course, decided at its submission."""

    task_id: str
    trace_id: str
    work: float
    failure: tuple[str, str] | None
    lost: bool
    steps: tuple[Step, ...]
    state_style: Literal["absent", "empty", "word"]
    running_response: Literal["null", "empty", "absent", "partial"]
    elapsed_name: Literal["elapsed", "duration"]
    has_extras: bool
    record_id: str
    image_id: str
    job_id: str
    video_id: str
    scenes: tuple[str, ...]


def draw_plan(
    options: Options, number: int, task_type: str, streaming: bool = False, *, has_progress: bool = True
) -> Plan:
    """Draw the plan of submission `number`. It always makes all draws, so that no option shifts another."""
    rng = random.Random(f"{options.seed}:task:{number}")
    task_id, trace_id = draw_uuid(rng), draw_uuid(rng)
    works, fails, loses, repeats, disorders, streams, late = (rng.random() for _ in range(7))
    shortest, longest = options.work
    work = shortest + (longest - shortest) * works
    # A description has no progress, neither in its callbacks nor in its record.
    speaks = has_progress and task_type != "describe"
    steps = _steps(
        work,
        progressing=speaks and (streaming or streams < options.progress),
        disordered=speaks and disorders < options.disordered,
        duplicated=repeats < options.duplicated,
        late=0.1 + 0.4 * late,
    )
    failure = rng.choice(FAILURES)
    return Plan(
        task_id=task_id,
        trace_id=trace_id,
        work=work,
        failure=failure if fails < options.failing else None,
        lost=loses < options.lost,
        steps=steps,
        state_style=rng.choice(("absent", "empty", "word")),
        running_response=rng.choice(("null", "null", "empty", "absent", "partial", "partial")),
        elapsed_name=rng.choice(("elapsed", "duration")),
        has_extras=rng.random() < 0.5,
        record_id=f"{rng.getrandbits(96):024x}",
        image_id=str(rng.randrange(10**18, 2 * 10**18)),
        job_id=draw_uuid(rng),
        video_id=str(rng.randrange(10**15, 2 * 10**15)),
        scenes=tuple(rng.sample(SCENES, 4)),
    )


def draw_uuid(rng: random.Random) -> str:
    """Draw a version 4 UUID."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _steps(
    work: float, *, progressing: bool, disordered: bool, duplicated: bool, late: float
) -> tuple[Step, ...]:
    """List the steps in order, which also holds when the task takes no time."""
    steps = [Step(0.3 * work, "progress", 25)] if progressing else []
    if progressing and not disordered:
        steps.append(Step(0.65 * work, "progress", 60))
    steps.append(Step(work, "final"))
    if disordered:
        steps.append(Step((1 + late) * work, "progress", 60))
    if duplicated:
        steps.append(Step((1.05 + late) * work, "duplicate"))
    return tuple(steps)


def final_body(plan: Plan, task_type: str, trace_id: str, base_url: str) -> Json:
    """Build the result for the callback and the record."""
    if plan.failure is not None:
        code, message = plan.failure
        return {
            "success": False,
            "task_id": plan.task_id,
            "trace_id": trace_id,
            "error": {"code": code, "message": message},
        }
    if task_type == "describe":
        return {
            "success": True,
            "task_id": plan.task_id,
            "trace_id": trace_id,
            "descriptions": [f"{scene} --ar 75:44" for scene in plan.scenes],
        }
    image_url = f"{base_url}/images/{plan.task_id}.png"
    if task_type == "videos":
        return _video_body(plan, image_url, base_url)
    if task_type == "edits":
        return _edits_body(plan, image_url, base_url)
    return {
        "success": True,
        "task_id": plan.task_id,
        "trace_id": trace_id,
        **_picture(image_url, 1024, 1024, raw=2),
        "image_id": plan.image_id,
        "progress": 100,
        "actions": ACTIONS,
    }


def progress_body(plan: Plan, progress: int, base_url: str) -> Json:
    """Build a progress body: its flag says success, and its image is deleted once the task has finished."""
    return {
        **_picture(f"{base_url}/images/tmp/{plan.task_id}-{progress}.png", 256, 256, raw=2),
        "image_id": plan.image_id,
        "progress": progress,
        "actions": [],
        "task_id": plan.task_id,
        "success": True,
    }


def _edits_body(plan: Plan, image_url: str, base_url: str) -> Json:
    return {
        "sub_image_urls": [f"{base_url}/images/{plan.task_id}_{part}.png" for part in range(4)],
        **_picture(image_url, 960, 1200, raw=1),
        "progress": 100,
        "image_id": plan.image_id,
        "task_id": plan.task_id,
        "success": True,
    }


def _video_body(plan: Plan, image_url: str, base_url: str) -> Json:
    return {
        "image_url": image_url,
        "image_width": 560,
        "image_height": 688,
        "progress": 100,
        "video_id": plan.video_id,
        "video_urls": [f"{base_url}/videos/{plan.task_id}/0_{part}.mp4" for part in range(4)],
        "task_id": plan.task_id,
        "success": True,
    }


def _picture(url: str, width: int, height: int, raw: int) -> Json:
    return {
        "image_url": url,
        "image_width": width,
        "image_height": height,
        "raw_image_url": url,
        "raw_image_width": raw * width,
        "raw_image_height": raw * height,
    }
