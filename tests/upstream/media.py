"""The stand-in's small real video and song, whole or in the parts that browsers request."""

import re
from functools import cache
from pathlib import Path

from .answers import Answer

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@cache
def clip() -> bytes:
    """Return three seconds of moving colours: H.264 in MP4."""
    return (Path(__file__).parent / "clip.mp4").read_bytes()


@cache
def silence() -> bytes:
    """Return three seconds of silence in MP3: empty frames at 128 kbit/s and 44.1 kHz."""
    return (b"\xff\xfb\x90\x00" + bytes(413)) * 115


def video(wanted: str | None) -> Answer:
    """Answer with the clip, or with the part in a Range header, without which some browsers play nothing."""
    return _part(clip(), "video/mp4", wanted)


def song(wanted: str | None) -> Answer:
    """Answer with silence, or with the part in a Range header."""
    return _part(silence(), "audio/mpeg", wanted)


def _part(content: bytes, content_type: str, wanted: str | None) -> Answer:
    headers = {"Content-Type": content_type, "Accept-Ranges": "bytes", "Cache-Control": "max-age=3600"}
    part = _RANGE.fullmatch(wanted or "")
    if part is None:
        return Answer(200, content, headers)
    first, last = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
    if first > last:
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{len(content)}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Answer(206, content[first : last + 1], headers)
