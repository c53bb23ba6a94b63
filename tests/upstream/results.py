"""What finished and running tasks of each service say. No clock, no network."""

from collections.abc import Callable

from .catalogue import MIDJOURNEY, Service
from .tasks import Json, Plan
from .tasks import final_body as midjourney_body

SONGS = 2


def final_body(service: Service, plan: Plan, task_type: str, trace_id: str, base_url: str) -> Json:
    """Build the result for the callback, the record and a synchronous answer."""
    if service is MIDJOURNEY or (plan.failure is not None and not service.is_flat):
        return midjourney_body(plan, task_type, trace_id, base_url)
    if plan.failure is not None:
        return midjourney_body(plan, task_type, trace_id, base_url) | {"state": "failed"}
    head = {"success": True, "task_id": plan.task_id, "trace_id": trace_id}
    return head | _RESULTS[service.name](plan, base_url)


def running_body(service: Service, plan: Plan) -> Json:
    """Build the partial response of a running task of any service but Midjourney."""
    return {"success": True, "task_id": plan.task_id, **_RUNNING.get(service.name, {})}


def _songs(plan: Plan, base_url: str) -> Json:
    songs = []
    for number in range(SONGS):
        name = f"{plan.task_id}_{number}"
        songs.append(
            {
                "id": name,
                "title": plan.scenes[number],
                "image_url": f"{base_url}/images/{name}.png",
                "lyric": f"[Verse]\n{plan.scenes[number]}",
                "audio_url": f"{base_url}/audios/{name}.mp3",
                "video_url": f"{base_url}/videos/{plan.task_id}/0_{number}.mp4",
                "model": "chirp-v5",
                "state": "succeeded",
                "duration": 120.5,
            }
        )
    return {"data": songs}


def _veo_videos(plan: Plan, base_url: str) -> Json:
    video = {
        "id": plan.record_id,
        "video_url": _video(plan, base_url),
        "created_at": "2025-07-25 17:19:20",
        "complete_at": "2025-07-25 17:21:45",
        "state": "succeeded",
    }
    return {"data": [video]}


def _flux_images(plan: Plan, base_url: str) -> Json:
    image = {
        "prompt": plan.scenes[0],
        "image_url": f"{base_url}/images/{plan.task_id}.png",
        "seed": 281520112,
        "timings": {"inference": 3.193},
    }
    return {"data": [image]}


def _seedance_video(plan: Plan, base_url: str) -> Json:
    # Its task id is one of the model's own: never the task's.
    video = {
        "task_id": f"cgt-{plan.record_id[:12]}",
        "status": "succeeded",
        "video_url": _video(plan, base_url),
        "last_frame_url": None,
    }
    return {"data": video}


def _talking_head(plan: Plan, base_url: str) -> Json:
    return {
        "state": "succeed",
        "progress": 100,
        "video_url": _video(plan, base_url),
        "duration": 17.2,
        "width": 1280,
        "height": 720,
        "engine": "latentsync",
    }


def _video(plan: Plan, base_url: str) -> str:
    return f"{base_url}/videos/{plan.task_id}/0_0.mp4"


_RESULTS: dict[str, Callable[[Plan, str], Json]] = {
    "suno": _songs,
    "veo": _veo_videos,
    "flux": _flux_images,
    "seedance": _seedance_video,
    "digital-human": _talking_head,
}
_RUNNING: dict[str, Json] = {
    # A song may have its link while it is still being made.
    "suno": {"data": [{"id": "s0", "audio_url": "https://cdn.example.com/early.mp3", "state": "pending"}]},
    "veo": {"data": [{"id": "v0", "state": "processing"}]},
    "seedance": {"data": {"task_id": "cgt-0", "status": "running"}},
    "digital-human": {"state": "processing", "progress": 35},
}
