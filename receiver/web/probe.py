"""The signed probe with which `check` finds out who answers at our callback URL. Pure.

The running web process recognises it by its signature, answers it signed, and records nothing. The key is the
callback token: who knows that can post callbacks anyway.
"""

import hashlib
import hmac
import json

from receiver.api_keys import is_same_secret
from receiver.version import VERSION

PROBE_HEADER = "Backstop-Probe"  # a probe with a wrong token is no callback that went astray
_MARK = b'{"backstop_probe": "'
_LARGEST = 256


def make_probe(token: str, nonce: str) -> bytes:
    """Return the body of a probe."""
    return json.dumps({"backstop_probe": nonce, "signature": _sign("ask", token, nonce)}).encode()


def answer_to(body: bytes, token: str) -> dict[str, str] | None:
    """Return the answer to a probe; None for any other body, and for a probe with a wrong signature."""
    if not body.startswith(_MARK) or len(body) > _LARGEST:
        return None
    try:
        probe = json.loads(body)
        nonce, signature = str(probe["backstop_probe"]), str(probe["signature"])
        if not is_same_secret(signature, _sign("ask", token, nonce)):
            return None
    except (ValueError, KeyError, TypeError):  # a lone surrogate is a ValueError too
        return None
    return {"backstop_probe": nonce, "signature": _sign("answer", token, nonce), "version": VERSION}


def version_in(answer: object, token: str, nonce: str) -> str | None:
    """Return the version of the Backstop that answered this probe; None if the answer is not one to it."""
    if not isinstance(answer, dict):
        return None
    if not is_same_secret(str(answer.get("signature")), _sign("answer", token, nonce)):
        return None
    return str(answer.get("version"))


def _sign(what: str, token: str, nonce: str) -> str:
    return hmac.new(token.encode(), f"backstop {what} {nonce}".encode(), hashlib.sha256).hexdigest()
