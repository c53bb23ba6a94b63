"""What ALERT_URL is posted, in the form that its receiver takes. Pure.

The host tells the form, or a prefix such as `slack+https://`: Slack, ntfy, or plain JSON for all others.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from receiver.clock import to_iso
from receiver.forward.attempt import Request
from receiver.web.formatting import span
from receiver.web.watch.troubles import KINDS

_FORMS_BY_HOST = {"hooks.slack.com": "slack", "ntfy.sh": "ntfy"}
_FORMS = ("slack", "ntfy", "json")
_LONGEST = 2000  # ntfy turns a longer text into an attachment, beyond 4,096 bytes


@dataclass(frozen=True, slots=True)
class Message:
    """What is told of one incident. `over_at` is None when it begins."""

    code: str
    text: str  # what is wrong and what to do
    began_at: datetime
    over_at: datetime | None

    @property
    def title(self) -> str:
        title = KINDS[self.code].title if self.code in KINDS else self.code
        return f"Backstop: {title}" if self.over_at is None else f"Backstop: over: {title}"

    @property
    def words(self) -> str:
        if self.over_at is None:
            return self.text[:_LONGEST]
        return f"It lasted {span(self.over_at - self.began_at)}, from {self.began_at:%Y-%m-%d %H:%M:%S} UTC."


def form_of(url: str) -> tuple[str, str]:
    """Return the form that a URL takes, and the URL without the prefix that names the form."""
    form, plus, rest = url.partition("+")
    if plus and form in _FORMS:
        return form, rest
    return _FORMS_BY_HOST.get(urlsplit(url).hostname or "", "json"), url


def request_for(url: str, message: Message, public_url: str | None) -> Request:
    """Return the request that tells of an incident. `public_url` leads to the overview."""
    form, address = form_of(url)
    headers, body = {"slack": _slack, "ntfy": _ntfy, "json": _json}[form](message, public_url)
    return Request(address, headers, body, may_be_private=True)


def _slack(message: Message, public_url: str | None) -> tuple[dict[str, str], bytes]:
    text = f"*{_escaped(message.title)}*\n{_escaped(message.words)}"
    if public_url:
        text += f"\n<{public_url}|Overview>"
    return {"content-type": "application/json"}, json.dumps({"text": text}).encode()


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _ntfy(message: Message, public_url: str | None) -> tuple[dict[str, str], bytes]:
    begins = message.over_at is None
    headers = {"title": message.title, "priority": "high" if begins else "default"}
    headers["tags"] = "rotating_light" if begins else "white_check_mark"
    if public_url:
        headers["click"] = public_url
    return headers, message.words.encode()


def _json(message: Message, public_url: str | None) -> tuple[dict[str, str], bytes]:
    told = {
        "code": message.code,
        "state": "began" if message.over_at is None else "over",
        "title": message.title,
        "message": message.words,
        "began_at": to_iso(message.began_at),
        "over_at": to_iso(message.over_at),
        "url": public_url,
    }
    return {"content-type": "application/json"}, json.dumps(told).encode()
