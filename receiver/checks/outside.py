"""Checks the callback URL from the outside: posts a signed probe to it and sees who answers."""

import ipaddress
import json
import secrets
import socket
from urllib.parse import urlsplit

import urllib3

from receiver.checks.finding import Finding, bad, good, warning
from receiver.config import Settings
from receiver.forward.addresses import is_public
from receiver.redact import mask_tokens
from receiver.version import VERSION
from receiver.web.probe import PROBE_HEADER, make_probe, version_in

NAME = "callback URL"
# As upstream's sender calls itself: what stands in front may refuse it for that.
_USER_AGENT = "python-requests/2.32.5"
_LARGEST_ANSWER = 4096
_WITHIN_SECONDS = 10.0


def check_callback_url(settings: Settings) -> list[Finding]:
    """Return who answers at PUBLIC_URL's callback route. Nothing is recorded there."""
    if settings.public_url is None:
        return []
    token, nonce = settings.callback_tokens[0], secrets.token_hex(8)
    found = [] if _is_reachable(settings) else [_private(settings.public_url)]
    try:
        answer = urllib3.request(
            "POST",
            f"{settings.public_url}/callbacks/{token}",
            body=make_probe(token, nonce),
            headers={"User-Agent": _USER_AGENT, "Content-Type": "application/json", PROBE_HEADER: "1"},
            timeout=_WITHIN_SECONDS,
            retries=False,
            redirect=False,
            preload_content=False,
        )
        body = answer.read(_LARGEST_ANSWER)
        answer.close()
    except urllib3.exceptions.HTTPError as problem:
        return [*found, _unanswered(settings.public_url, problem)]
    version = version_in(_parse(body), token, nonce)
    location = mask_tokens(answer.headers.get("Location", ""))
    return [*found, judge(settings.public_url, answer.status, location, body, version)]


def judge(url: str, status: int, location: str, body: bytes, version: str | None) -> Finding:
    """Judge the answer to a probe. `version` is that of the Backstop which answered it, if one has. Pure."""
    if version == VERSION:
        return good(NAME, f"a probe reached the receiver at {url}")
    if version is not None:
        return warning(
            NAME,
            f"version {version} answers at {url}, and this is {VERSION}",
            "Restart the web process, or deploy this version.",
        )
    if 300 <= status < 400:
        return bad(
            NAME,
            f"{url} redirects to {location or 'nowhere'}: a redirected callback loses its body",
            f"Set PUBLIC_URL to the address that it redirects to, and submit with that callback URL."
            f" Or turn the redirect off for {urlsplit(url).path}/callbacks/.",
        )
    if b"callback token" in body:
        return bad(
            NAME,
            f"the Backstop at {url} has another CALLBACK_TOKEN: it refuses these callbacks",
            "Restart the web process if CALLBACK_TOKEN was changed, or correct it here.",
        )
    return _not_ours(url, status, body)


def _not_ours(url: str, status: int, body: bytes) -> Finding:
    if b'"readable"' in body:
        return warning(
            NAME,
            f"an older Backstop at {url} took the probe for an unreadable callback",
            "Deploy this version there.",
        )
    if status in (401, 403, 429):
        return bad(
            NAME,
            f"something in front of {url} refuses the probe with {status}",
            "Let POST requests to /callbacks/ through: no sign-in, no bot protection, no firewall. Upstream"
            " calls itself python-requests.",
        )
    if status >= 500:
        return bad(
            NAME,
            f"{url} answers {status}: the receiver behind it does not answer",
            "Start the web process, and let the proxy in front lead to its PORT.",
        )
    return bad(
        NAME,
        f"another program answers at {url}, with {status}",
        "Set PUBLIC_URL to this deployment's address, with the path if it has one.",
    )


def _unanswered(url: str, problem: urllib3.exceptions.HTTPError) -> Finding:
    if isinstance(problem, urllib3.exceptions.SSLError):
        return bad(
            NAME,
            f"TLS fails at {url}: {_words(problem)}",
            "Get a valid certificate for this name, with its whole chain (Caddy does so by itself), or set"
            " PUBLIC_URL to the right name.",
        )
    if isinstance(problem, urllib3.exceptions.NameResolutionError):
        return bad(
            NAME,
            f"the name in {url} cannot be looked up",
            "Correct PUBLIC_URL, or make the name lead to this machine (DNS).",
        )
    return bad(
        NAME,
        f"nobody answers at {url}: {_words(problem)}",
        "Start the web process, and open the way to it: the port, the firewall, the proxy in front.",
    )


def _private(url: str) -> Finding:
    return bad(
        NAME,
        f"{url} leads to a private address, which Ace Data Cloud cannot reach",
        "Set PUBLIC_URL to a public address. A machine at home needs a tunnel or a proxy.",
    )


def _is_reachable(settings: Settings) -> bool:
    """Tell whether upstream can reach PUBLIC_URL, as far as the addresses tell."""
    return _is_private(settings.api_base_url) or not _is_private(settings.public_url or "")


def _is_private(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        addresses = {ipaddress.ip_address(host).compressed}
    except ValueError:
        try:
            addresses = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, None)}
        except OSError:
            return False
    return not any(is_public(address) for address in addresses)


def _words(problem: urllib3.exceptions.HTTPError) -> str:
    # What stands before the last words is the connection's memory address.
    return str(problem).rpartition(": ")[2] or type(problem).__name__


def _parse(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None
