"""Answers that need no task: short texts, lists, and chats that are streamed word by word."""

import json
import threading
import time
from collections.abc import Callable, Iterator

from .answers import Answer, Stream, json_answer
from .tasks import SCENES, Json

CHAT_PATH = "/openai/chat/completions"
WORDS = ("A ", "signpost ", "under ", "sunlight.")
# What GET answers, by path.
READS: dict[str, Json] = {
    "/openai/models": {
        "object": "list",
        "data": [{"id": "gpt-5.2", "object": "model", "owned_by": "openai"}],
    },
    "/suno/persona": {"items": [], "count": 0},
}


def short_answer(service: str, name: str, request: Json, task_id: str) -> Json:
    """Build the answer of an operation that is answered at once."""
    if service == "suno":
        return {"success": True, "task_id": task_id, "data": _suno(name, request)}
    return _MIDJOURNEY[name](request)


def chat(request: Json, gap: float, stopping: threading.Event) -> Answer | Stream:
    """Answer a chat as a whole, or with `stream` as events, `gap` seconds apart."""
    if not request.get("stream"):
        message = {"role": "assistant", "content": "".join(WORDS)}
        return json_answer({"object": "chat.completion", "choices": [{"index": 0, "message": message}]})
    return Stream(200, _events(gap, stopping), {"Content-Type": "text/event-stream"})


def _events(gap: float, stopping: threading.Event) -> Iterator[bytes]:
    for word in WORDS:
        event = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": word}}]}
        yield f"data: {json.dumps(event)}\n\n".encode()
        if stopping.wait(gap):
            return
    yield b"data: [DONE]\n\n"


def _suno(name: str, request: Json) -> Json:
    if "lyrics" in name:
        return {"title": "Lights", "text": f"[Verse]\n{SCENES[0]}", "status": "complete"}
    if name == "mp4":
        return {"video_url": "https://cdn.example.com/song.mp4"}
    return {"id": "made-at-once", "style": f"{request.get('prompt')}, in detail"}


def _shortened(request: Json) -> Json:
    now = round(time.time(), 1)
    return {
        "prompts": [str(request.get("prompt"))[:40], SCENES[0]],
        "started_at": now - 0.6,
        "finished_at": now,
        "elapsed": 0.6,
        "cost": {"amount": 0.18, "currency": "credit", "list_amount": 0.2},
    }


_MIDJOURNEY: dict[str, Callable[[Json], Json]] = {
    "describe": lambda _: {"descriptions": [f"{scene} --ar 75:44" for scene in SCENES[:4]]},
    "seed": lambda _: {"seed": "1515630083539206144"},
    "shorten": _shortened,
    "translate": lambda request: {"content": f"In English: {request.get('content')}"},
}
