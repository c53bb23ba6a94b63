"""Who may see what: the API key's check, and the session of somebody who has signed in with it."""

import hashlib
import hmac
from typing import Any

from flask import Flask, Request, request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.exceptions import Forbidden, Unauthorized

from receiver.config import Settings
from receiver.web.errors import MACHINE_PATHS, BadInput
from receiver.web.settings import current_settings

csrf = CSRFProtect()
_SIGNED_IN = "signed_in"
_NOT_OUR_FORM = (
    "This did not come from a form that this deployment gave you, or your browser keeps no cookies for it."
    " Go back, reload the page and try again."
)
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class KeyNeeded(Unauthorized):
    """A request without the API key, or with a wrong one."""

    description = "Send the API key, as `Authorization: Bearer` or as the password of HTTP Basic."
    challenges: tuple[str, ...] = ('Basic realm="Backstop", charset="UTF-8"', 'Bearer realm="Backstop"')

    def get_headers(self, *arguments: Any, **named: Any) -> list[tuple[str, str]]:
        """Return the headers of a 401, the challenges written as every client reads them."""
        return [
            *super().get_headers(*arguments, **named),
            *(("WWW-Authenticate", challenge) for challenge in self.challenges),
        ]


class SignInNeeded(KeyNeeded):
    """A request for a page by somebody who has not signed in."""

    description = "Sign in with the API key."
    # Not Basic: it would make a browser ask in a window of its own, in front of our form.
    challenges = ('Bearer realm="Backstop"',)


class _Sessions(SecureCookieSessionInterface):
    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Return the visitor's session; None for programs, which have none: callbacks need not pay for it."""
        return None if request.path.startswith(MACHINE_PATHS) else super().open_session(app, request)

    def get_cookie_secure(self, app: Flask) -> bool:
        """Tell whether the cookie is for HTTPS alone: where the visitor came that way.

        The header may be made up, by whom it keeps from signing in over HTTP and nobody else.
        """
        return request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"


def add_sessions(app: Flask, settings: Settings) -> None:
    """Make the application remember who has signed in, by a signed cookie, for 14 days."""
    # Of the API key, so that whoever signed in with an old one is signed out when it changes.
    app.secret_key = hashlib.sha256(b"the session's cookie: " + settings.api_key.encode()).digest()
    app.session_interface = _Sessions()
    app.config.update(
        SESSION_COOKIE_NAME="backstop",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",  # a link to a page, in a mail say, opens it
        PERMANENT_SESSION_LIFETIME=14 * 86400,
        WTF_CSRF_CHECK_DEFAULT=False,  # pages ask for it; the API and callbacks know no cookie
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session
        WTF_CSRF_SSL_STRICT=False,  # it wants a Referer, which pages tell browsers to leave out
    )
    csrf.init_app(app)


def require_api_key() -> None:
    """Let a request through that carries the API key, as a Bearer token or as the password of HTTP Basic.

    401 without it or with a wrong one. 403 for a change that another site's page asks a browser for: the
    browser adds the Basic password by itself.
    """
    if not _carries_key():
        raise KeyNeeded
    if request.method not in _SAFE_METHODS and request.headers.get("Sec-Fetch-Site", "none") not in {
        "none",
        "same-origin",
    }:
        raise Forbidden("Another site's page may not change anything here.")


def require_visitor() -> None:
    """Let somebody through who has signed in, or sends the API key. 401 to others."""
    if not session.get(_SIGNED_IN) and not _carries_key():
        raise SignInNeeded


def require_form_of_ours() -> None:
    """Let a change through that one of our own forms asks for: 400 to others."""
    if request.method not in _SAFE_METHODS:
        try:
            csrf.protect()
        except CSRFError:
            raise BadInput(_NOT_OUR_FORM) from None


def sign_in(key: str) -> bool:
    """Remember the visitor, if that is the API key."""
    if not is_same_secret(key, current_settings().api_key):
        return False
    session.permanent = True
    session[_SIGNED_IN] = True
    return True


def sign_out() -> None:
    """Forget the visitor."""
    session.clear()


def has_session() -> bool:
    """Tell whether the visitor has signed in by our form, and so can sign out."""
    return bool(session.get(_SIGNED_IN))


def is_same_secret(given: str, secret: str) -> bool:
    """Compare in a time that tells nothing about where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret.encode())


def _carries_key() -> bool:
    given = request.authorization
    secret = given.token if given and given.type == "bearer" else given.password if given else None
    return bool(secret) and is_same_secret(str(secret), current_settings().api_key)
