"""What a task's response holds, made ready for a page: links that are safe to follow, texts, printed JSON."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from receiver.ledger.models import Delivery, Task
from receiver.ledger.redact import MASK
from receiver.ledger.results import SUCCEEDED, parse_json
from receiver.web.wording import shown

_LINKS = {"image_url": "image", "raw_image_url": "full-size image", "video_url": "video"}
_LINK_LISTS = {"image_urls": "image", "sub_image_urls": "image", "video_urls": "video"}
_MOST_ENTRIES = 50
_MOST_CHARACTERS = 100_000


@dataclass(frozen=True, slots=True)
class Link:
    """An address that a browser may be sent to."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Contents:
    """The readable parts of a response; `image` and `video` are what a page may load by itself."""

    image: str | None
    video: str | None
    links: tuple[Link, ...]
    descriptions: tuple[str, ...]
    prompts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verbatim:
    """A delivery's headers, and its body as text, in which `not_text` places are no UTF-8 but escapes.

    `indented` is the body's JSON made readable; None when it is no JSON.
    """

    headers: tuple[tuple[str, str], ...]
    body: str
    not_text: int
    indented: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Upstream's error, in clear."""

    code: str
    message: str


def contents_of(task: Task) -> Contents:
    """Return the readable parts of a task's response; what is no safe link is left out of the links."""
    response = _object(task.response)
    return Contents(
        image=loadable(response.get("image_url")) if is_upstreams(task) else None,
        video=next(iter(_videos(response)), None) if is_upstreams(task) else None,
        links=tuple(_links(response)),
        descriptions=_texts(response.get("descriptions")),
        prompts=_texts(response.get("prompts")),
    )


def image_of(task: Task) -> str | None:
    """Return the address of a task's image, if that is safe to link to."""
    return safe_url(_object(task.response).get("image_url"))


def is_upstreams(task: Task) -> bool:
    """Tell whether a task's response is upstream's own word that it succeeded, and no callback's alone."""
    return bool(task.lookup_status == SUCCEEDED)


def thumbnail_of(task: Task) -> str | None:
    """Return the address from which a page may load a task's image."""
    return loadable(_object(task.response).get("image_url")) if is_upstreams(task) else None


def failure_of(task: Task) -> Failure | None:
    """Return why a task failed, if upstream told."""
    error = _object(task.error)
    code, message = error.get("code"), error.get("message")
    if code is None and message is None:
        return None
    return Failure("" if code is None else shown(code, 200), "" if message is None else shown(message, 2000))


def verbatim(delivery: Delivery, secrets: Sequence[str]) -> Verbatim:
    """Return what came, whole, but for callback tokens and `secrets`."""
    body = bytes(delivery.body)
    headers = tuple(
        (str(name), _without(secrets, shown(value, 8192))) for name, value in json.loads(delivery.headers)
    )
    not_text = sum(character == "\ufffd" for character in body.decode(errors="replace"))
    not_text -= body.count("\ufffd".encode())
    text = shown(body.decode(errors="backslashreplace"), len(body) * 4 + 1)
    return Verbatim(headers, _without(secrets, text), not_text, _indented(body, secrets))


def problem_of(delivery: Delivery) -> str:
    """Return why a delivery could not be read as a result."""
    return shown(_object(delivery.problem).get("message", "It could not be read."))


def printed(text: str | None) -> str | None:
    """Return strict JSON with indentation, in full up to a length that a browser bears."""
    if text is None:
        return None
    return shown(json.dumps(json.loads(text), indent=2, ensure_ascii=False), _MOST_CHARACTERS)


def safe_url(value: object) -> str | None:
    """Return `value` if it is an http or https address, else None: a `javascript:` link would run here."""
    if not isinstance(value, str) or not value.isprintable() or " " in value:
        return None
    try:
        parts = urlsplit(value)
    except ValueError:
        return None
    return value if parts.scheme in {"http", "https"} and parts.hostname else None


def loadable(value: object) -> str | None:
    """Return `value` if a page may load it by itself, without a click: an https address."""
    url = safe_url(value)
    return url if url and urlsplit(url).scheme == "https" else None


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
    return shown(_without(secrets, text), _MOST_CHARACTERS)  # masked first: what is cut could not be found


def _links(response: dict[str, Any]) -> Iterable[Link]:
    seen: set[str] = set()
    found = [(name, response.get(field)) for field, name in _LINKS.items()]
    for field, name in _LINK_LISTS.items():
        found += [(f"{name} {n}", entry) for n, entry in enumerate(_list(response.get(field)), 1)]
    for name, value in found:
        if (url := safe_url(value)) and url not in seen:
            seen.add(url)
            yield Link(name, url)


def _videos(response: dict[str, Any]) -> Iterable[str]:
    found = [response.get("video_url"), *_list(response.get("video_urls"))]
    return (url for value in found if (url := loadable(value)))


def _texts(value: object) -> tuple[str, ...]:
    return tuple(shown(entry, 2000) for entry in _list(value) if isinstance(entry, str))


def _list(value: object) -> list[Any]:
    return value[:_MOST_ENTRIES] if isinstance(value, list) else []


def _object(text: str | None) -> dict[str, Any]:
    value = json.loads(text) if text else None
    return value if isinstance(value, dict) else {}
