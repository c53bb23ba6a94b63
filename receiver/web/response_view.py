"""Prepares a task's response for a page: safe links, texts and indented JSON."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from receiver.ledger.models import Delivery, Task
from receiver.redact import MASK
from receiver.upstream.encodings import LARGEST, decoded
from receiver.upstream.results import SUCCEEDED, Unreadable, parse_json
from receiver.web.formatting import shown

_LINKS = {"image_url": "image", "raw_image_url": "full-size image", "video_url": "video"}
_LINKS |= {"audio_url": "audio", "output_url": "file", "url": "file"}
_LINK_LISTS = {"image_urls": "image", "sub_image_urls": "image", "video_urls": "video"}
_THIS_MACHINE = {"127.0.0.1", "localhost"}
_MOST_ENTRIES = 50
_MOST_CHARACTERS = 100_000


@dataclass(frozen=True, slots=True)
class Link:
    """An address that is safe to link to."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Contents:
    """The readable parts of a response. A page may load `image` and `video` without a click."""

    image: str | None
    video: str | None
    links: tuple[Link, ...]
    descriptions: tuple[str, ...]
    prompts: tuple[str, ...]


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


def contents_of(task: Task, stand_in: str | None = None) -> Contents:
    """Return the readable parts of a task's response, without unsafe links. See `loadable` for `stand_in`."""
    response = _object(task.response)
    return Contents(
        image=loadable(_image(response), stand_in) if is_upstreams(task) else None,
        video=next(iter(_videos(response, stand_in)), None) if is_upstreams(task) else None,
        links=tuple(_links(response)),
        descriptions=_texts(response.get("descriptions")),
        prompts=_texts(response.get("prompts")),
    )


def image_of(task: Task) -> str | None:
    """Return the address of a task's image; None without one that is safe to link to."""
    return safe_url(_image(_object(task.response)))


def is_upstreams(task: Task) -> bool:
    """Tell whether a task's success was confirmed by a look-up, and so is not a callback's word alone."""
    return bool(task.lookup_status == SUCCEEDED)


def thumbnail_of(task: Task, stand_in: str | None = None) -> str | None:
    """Return the address from which a page may load a task's image. See `loadable` for `stand_in`."""
    return loadable(_image(_object(task.response)), stand_in) if is_upstreams(task) else None


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


def _links(response: dict[str, Any]) -> Iterable[Link]:
    seen: set[str] = set()
    places = _places(response)
    for number, place in enumerate(places, 1):
        which = f" of {number - 1}" if number > 1 and len(places) > 2 else ""
        found = [(name, place.get(field)) for field, name in _LINKS.items()]
        for field, name in _LINK_LISTS.items():
            found += [(f"{name} {n}", entry) for n, entry in enumerate(_list(place.get(field)), 1)]
        for name, value in found:
            if (url := safe_url(value)) and url not in seen:
                seen.add(url)
                yield Link(f"{name}{which}", url)


def _places(response: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects that may hold results: the response, its `data` and `content`, members of `data`."""
    data = response.get("data")
    inner = [*_list(data), data, response.get("content")]
    return [response, *(place for place in inner if isinstance(place, dict))]


def _image(response: dict[str, Any]) -> object:
    images = (place.get("image_url") for place in _places(response))
    return next((image for image in images if image), None)


def _videos(response: dict[str, Any], stand_in: str | None) -> Iterable[str]:
    found = [
        value
        for place in _places(response)
        for value in (place.get("video_url"), *_list(place.get("video_urls")))
    ]
    return (url for value in found if (url := loadable(value, stand_in)))


def _texts(value: object) -> tuple[str, ...]:
    return tuple(shown(entry, 2000) for entry in _list(value) if isinstance(entry, str))


def _list(value: object) -> list[Any]:
    return value[:_MOST_ENTRIES] if isinstance(value, list) else []


def _object(text: str | None) -> dict[str, Any]:
    value = json.loads(text) if text else None
    return value if isinstance(value, dict) else {}
