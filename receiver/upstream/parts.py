"""Lists what a response holds for the customer: links and texts, in parts such as songs. Pure.

Services name and nest their results in many ways. So the rules go by names and by the endings of addresses,
and an address that no rule knows is a link to a file.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from receiver.upstream.verdicts import TEXT_NAMES, is_input, texts_in

IMAGE, VIDEO, AUDIO, FILE = "image", "video", "audio", "file"

_ENDINGS = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".svg"), IMAGE),
    **dict.fromkeys((".mp4", ".webm", ".mov", ".m4v"), VIDEO),
    **dict.fromkeys((".mp3", ".wav", ".m4a", ".flac", ".ogg", ".aac", ".opus"), AUDIO),
    **dict.fromkeys((".mid", ".midi", ".glb", ".obj", ".json", ".zip", ".tgz", ".gz", ".pdf"), FILE),
}
# Words in names. The first that fits decides: `video_cover_url` is a picture.
_WORDS = {
    **dict.fromkeys(("image", "thumbnail", "cover", "frame", "poster", "photo", "picture"), IMAGE),
    "video": VIDEO,
    "audio": AUDIO,
}
_LABELS = {"raw_image": "full-size image", "sub_image": "image"}
_UNTOLD = frozenset({"", "output", "outputs"})  # names that do not say what an address leads to
_END_OF_NAME = re.compile(r"_?urls?$", re.IGNORECASE)
_ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)
_MOST_PARTS = _MOST_ENTRIES = 100
_DEEPEST = 6


@dataclass(frozen=True, slots=True)
class Link:
    """An address in a response. It may be forged: check it before a page links to it."""

    name: str
    url: str
    kind: str = FILE
    is_original: bool = False  # the same picture in full size


@dataclass(frozen=True, slots=True)
class Text:
    """A text, or a list of texts."""

    name: str
    entries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """What stands together in a response, such as one of two songs.

    `embedded` counts files that stand in the response itself, as base64.
    """

    title: str | None
    links: tuple[Link, ...] = ()
    texts: tuple[Text, ...] = ()
    embedded: int = 0


def parts_of(response: Mapping[str, Any], request: Mapping[str, Any]) -> tuple[Part, ...]:
    """Return the parts of a response, each address once. What it repeats from `request` is no result."""
    seen = set(texts_in(request))
    return tuple(islice(_parts(response, seen, 0), _MOST_PARTS))


def _parts(place: Mapping[str, Any], seen: set[str], depth: int) -> Iterator[Part]:
    results = {name: value for name, value in place.items() if name != "prompt" and not is_input(name)}
    part = _part(results, seen)
    if part.links or part.texts or part.embedded:
        yield part
    if depth == _DEEPEST:
        return
    for value in results.values():
        for entry in _entries(value):
            if isinstance(entry, dict):
                yield from _parts(entry, seen, depth + 1)


def _part(results: Mapping[str, Any], seen: set[str]) -> Part:
    links: list[Link] = []
    texts: list[Text] = []
    for name, value in results.items():
        told = [entry for entry in _entries(value) if isinstance(entry, str)]
        links += _links(name, told, seen)
        words = tuple(entry for entry in told if entry.strip() and not _ADDRESS.fullmatch(entry))
        if name in TEXT_NAMES and not seen.issuperset(words):
            texts.append(Text("HTML" if name == "html" else name.replace("_", " ").capitalize(), words))
    title = results.get("title")
    return Part(
        title=title if isinstance(title, str) and title.strip() else None,
        links=tuple(links),
        texts=tuple(texts),
        embedded=int(bool(results.get("b64_json"))),
    )


def _links(name: str, told: list[str], seen: set[str]) -> Iterator[Link]:
    stem = _END_OF_NAME.sub("", name)
    for number, url in enumerate(told, 1):
        if url in seen or not _ADDRESS.fullmatch(url):
            continue
        seen.add(url)
        kind = _kind(stem, url)
        label = kind if stem in _UNTOLD else _LABELS.get(stem, stem.replace("_", " "))
        yield Link(f"{label} {number}" if len(told) > 1 else label, url, kind, stem == "raw_image")


def _kind(stem: str, url: str) -> str:
    try:
        ending = PurePosixPath(urlsplit(url).path).suffix.lower()
    except ValueError:
        return FILE
    by_name = next((kind for word, kind in _WORDS.items() if word in stem.lower()), FILE)
    return _ENDINGS.get(ending, by_name)


def _entries(value: Any) -> list[Any]:
    return value[:_MOST_ENTRIES] if isinstance(value, list) else [value]
