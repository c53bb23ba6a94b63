"""The stand-in's small real video, whole or in the parts that browsers request."""

import re
from functools import cache
from pathlib import Path

from .answers import Answer

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@cache
def clip() -> bytes:
    """Return three seconds of moving colours: H.264 in MP4."""
    return (Path(__file__).parent / "clip.mp4").read_bytes()


def video(wanted: str | None) -> Answer:
    """Answer with the clip, or with the part in a Range header, without which some browsers play nothing."""
    headers = {"Content-Type": "video/mp4", "Accept-Ranges": "bytes", "Cache-Control": "max-age=3600"}
    part = _RANGE.fullmatch(wanted or "")
    if part is None:
        return Answer(200, clip(), headers)
    first, last = int(part[1]), min(int(part[2] or len(clip())), len(clip()) - 1)
    if first > last:
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{len(clip())}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{len(clip())}"
    return Answer(206, clip()[first : last + 1], headers)
