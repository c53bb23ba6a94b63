"""Prepares a task's response for a page: safe links, texts and indented JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from receiver.ledger.models import Delivery, Task
from receiver.redact import MASK
from receiver.upstream.encodings import LARGEST, decoded
from receiver.upstream.parts import AUDIO, IMAGE, VIDEO, Link, Part, Text, parts_of
from receiver.upstream.results import SUCCEEDED, Unreadable, parse_json
from receiver.web.formatting import shown

_THIS_MACHINE = {"127.0.0.1", "localhost"}
_MOST_MEDIA = 12  # of a kind in a part; the others are links
_LONGEST_SHOWN = 20_000  # characters of a text
_LONG, _MANY_LINES = 600, 12  # a text of more characters or lines is folded
_MOST_CHARACTERS = 100_000


@dataclass(frozen=True, slots=True)
class Words:
    """A text for a page, or a list of texts. `is_long`: show it folded."""

    name: str
    entries: tuple[str, ...]
    is_long: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """A part of a response. A page may load `images`, `videos`, `sounds` and `poster` without a click."""

    title: str | None
    images: tuple[str, ...]
    videos: tuple[str, ...]
    sounds: tuple[str, ...]
    poster: str | None
    links: tuple[Link, ...]
    texts: tuple[Words, ...]
    embedded: int


@dataclass(frozen=True, slots=True)
class Verbatim:
    """A delivery's headers and its body as text. `not_text` bytes were not UTF-8 and are escaped.

    `indented` is the body's JSON with indentation; None if the body is not JSON.
    """

    headers: tuple[tuple[str, str], ...]
    body: str
    not_text: int
    indented: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Upstream's error."""

    code: str
    message: str


def contents_of(task: Task, stand_in: str | None = None) -> tuple[Shown, ...]:
    """Return the readable parts of a task's response, without unsafe links. See `loadable` for `stand_in`."""
    parts = (_shown(part, is_upstreams(task), stand_in) for part in _parts(task))
    return tuple(part for part in parts if part.links or part.texts or part.embedded)


def links_of(task: Task) -> list[Link]:
    """Return all addresses of a task's results that are safe to link to."""
    return [link for part in _parts(task) for link in part.links if safe_url(link.url)]


def image_of(task: Task) -> str | None:
    """Return the address of a task's image; None without one that is safe to link to."""
    return image_among(links_of(task))


def image_among(links: Sequence[Link]) -> str | None:
    """Return the address of the first image; a full-size one only if there is no other."""
    images = sorted((link for link in links if link.kind == IMAGE), key=lambda link: link.is_original)
    return images[0].url if images else None


def is_upstreams(task: Task) -> bool:
    """Tell whether a task's success was confirmed by a look-up, and so is not a callback's word alone."""
    return bool(task.lookup_status == SUCCEEDED)


def thumbnail_of(task: Task, stand_in: str | None = None) -> str | None:
    """Return the address from which a page may load a task's image. See `loadable` for `stand_in`."""
    return loadable(image_of(task), stand_in) if is_upstreams(task) else None


def failure_of(task: Task) -> Failure | None:
    """Return why a task failed; None if upstream did not say."""
    error = _object(task.error)
    code, message = error.get("code"), error.get("message")
    if code is None and message is None:
        return None
    return Failure("" if code is None else shown(code, 200), "" if message is None else shown(message, 2000))


def verbatim(delivery: Delivery, secrets: Sequence[str]) -> Verbatim:
    """Return a delivery whole and decompressed, with callback tokens and `secrets` masked."""
    told = json.loads(delivery.headers)
    body = unpacked(bytes(delivery.body), told)
    headers = tuple((str(name), _without(secrets, shown(value, 8192))) for name, value in told)
    not_text = sum(character == "\ufffd" for character in body.decode(errors="replace"))
    not_text -= body.count("\ufffd".encode())
    text = shown(body.decode(errors="backslashreplace"), len(body) * 4 + 1)
    return Verbatim(headers, _without(secrets, text), not_text, _indented(body, secrets))


def unpacked(body: bytes, headers: Sequence[tuple[str, str]]) -> bytes:
    """Return a body decompressed; as it is if that fails."""
    try:
        return decoded(body, headers, LARGEST)
    except Unreadable:
        return body


def problem_of(delivery: Delivery) -> str:
    """Return why a delivery could not be read as a result."""
    return shown(_object(delivery.problem).get("message", "It could not be read."))


def printed(text: str | None) -> str | None:
    """Return strict JSON with indentation, cut at a length that a browser can display."""
    if text is None:
        return None
    return shown(json.dumps(json.loads(text), indent=2, ensure_ascii=False), _MOST_CHARACTERS)


def safe_url(value: object) -> str | None:
    """Return `value` if it is an http(s) address, else None: a `javascript:` link would run a script."""
    if not isinstance(value, str) or not value.isprintable() or " " in value:
        return None
    try:
        parts = urlsplit(value)
    except ValueError:
        return None
    return value if parts.scheme in {"http", "https"} and parts.hostname else None


def loadable(value: object, stand_in: str | None = None) -> str | None:
    """Return `value` if a page may load it without a click, else None. It must be an https address.

    `stand_in` is the origin of a local stand-in for upstream, for which http is allowed.
    """
    url = safe_url(value)
    if url is None:
        return None
    return url if urlsplit(url).scheme == "https" or _origin(url) == stand_in else None


def stand_in_of(api_base_url: str) -> str | None:
    """Return upstream's origin if it is a stand-in on this machine with plain http, else None."""
    parts = urlsplit(api_base_url)
    return _origin(api_base_url) if parts.scheme == "http" and parts.hostname in _THIS_MACHINE else None


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _without(secrets: Sequence[str], text: str) -> str:
    for secret in sorted(secrets, key=len, reverse=True):  # one may begin with another
        text = text.replace(secret, MASK)
    return text


def _indented(body: bytes, secrets: Sequence[str]) -> str | None:
    try:
        value = parse_json(body.decode("utf-8-sig"))
    except ValueError:
        return None
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return shown(_without(secrets, text), _MOST_CHARACTERS)  # mask first: cutting could split a secret


def _parts(task: Task) -> tuple[Part, ...]:
    return parts_of(_object(task.response), _object(task.request))


def _shown(part: Part, may_load: bool, stand_in: str | None) -> Shown:
    images, videos, sounds = (
        _media(part, kind, stand_in) if may_load else () for kind in (IMAGE, VIDEO, AUDIO)
    )
    return Shown(
        title=part.title and shown(part.title, 200),
        images=() if videos else images,
        videos=videos,
        sounds=sounds,
        poster=images[0] if videos and images else None,
        links=tuple(link for link in part.links if safe_url(link.url)),
        texts=tuple(map(_words, part.texts)),
        embedded=part.embedded,
    )


def _media(part: Part, kind: str, stand_in: str | None) -> tuple[str, ...]:
    """Return what a page may load of a kind. A full-size picture is loaded only if there is no other."""
    links = [link for link in part.links if link.kind == kind and loadable(link.url, stand_in)]
    usual = [link for link in links if not link.is_original] or links
    return tuple(link.url for link in usual[:_MOST_MEDIA])


def _words(text: Text) -> Words:
    entries = tuple(shown(entry, _LONGEST_SHOWN) for entry in text.entries)
    whole = "\n".join(entries)
    return Words(text.name, entries, len(whole) > _LONG or whole.count("\n") > _MANY_LINES)


def _object(text: str | None) -> dict[str, Any]:
    value = json.loads(text) if text else None
    return value if isinstance(value, dict) else {}
