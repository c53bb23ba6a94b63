"""Authentication: checks the API key, and keeps the sessions of visitors who signed in with it."""

import hashlib
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Request, request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.exceptions import Forbidden, Unauthorized

from receiver.api_keys import ApiKey, find_key
from receiver.config import Settings
from receiver.upstream.services import service_of
from receiver.web.current import current_settings
from receiver.web.errors import MACHINE_PATHS, BadInput
from receiver.web.guesses import note_wrong_key
from receiver.web.stalls import stall_guard

csrf = CSRFProtect()
_SIGNED_IN, _MAY_ONLY_READ = "signed_in", "may_only_read"
_IS_NOTED = "backstop.wrong_key_noted"
_WITHOUT_SESSION = (*MACHINE_PATHS, "/static/", "/favicon.ico")
_LONGEST_FORM_BYTES = 16_384
_NOT_OUR_FORM = (
    "This form was shown before you signed in, or is not of this deployment, or your browser keeps no cookies"
    " for it. Nothing was changed."
)
_ONLY_READS = "This API key may only read."
_WRONG_KEY = (
    "That is not the API key, which is in API_KEY in the settings of this deployment. Send one key alone,"
    " without the name that may stand before it."
)
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class KeyNeeded(Unauthorized):
    """A request without the API key, or with a wrong one."""

    description = "Send the API key, as `Authorization: Bearer` or as the password of HTTP Basic."
    challenges: tuple[str, ...] = ('Basic realm="Backstop", charset="UTF-8"', 'Bearer realm="Backstop"')

    def get_headers(self, *arguments: Any, **named: Any) -> list[tuple[str, str]]:
        """Return the headers of a 401, with one WWW-Authenticate line for each challenge."""
        return [
            *super().get_headers(*arguments, **named),
            *(("WWW-Authenticate", challenge) for challenge in self.challenges),
        ]


class SignInNeeded(KeyNeeded):
    """A request for a page by a visitor who has not signed in."""

    description = "Sign in with the API key."
    # No Basic challenge: the browser would show its own dialog instead of our form.
    challenges = ('Bearer realm="Backstop"',)


class _Sessions(SecureCookieSessionInterface):
    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Return the visitor's session; None for programs, which spares callbacks its cost."""
        if request.path.startswith(_WITHOUT_SESSION) or service_of(request.path) is not None:
            return None
        return super().open_session(app, request)

    def get_cookie_secure(self, app: Flask) -> bool:
        """Tell whether the cookie is for HTTPS only, which is when the visitor uses HTTPS.

        A forged header harms only the client that sends it: that client cannot sign in over HTTP.
        """
        proxy_was_asked_by = request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip()
        public_url = urlsplit(current_settings().public_url or "")
        is_public = public_url.scheme == "https" and _host(public_url.netloc) == _host(request.host)
        return request.is_secure or proxy_was_asked_by == "https" or is_public


def _host(netloc: str) -> str:
    return netloc.lower().removesuffix(":443").removesuffix(":80")


def add_sessions(app: Flask, settings: Settings) -> None:
    """Keep visitors signed in for 14 days, by a signed cookie."""
    app.secret_key = _signing_key(tuple(key.key for key in settings.api_keys))
    app.session_interface = _Sessions()
    app.config.update(
        SESSION_COOKIE_NAME="backstop",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",  # so that a link to a page works, for example from a mail
        PERMANENT_SESSION_LIFETIME=14 * 86400,
        SESSION_REFRESH_EACH_REQUEST=False,  # visits do not extend a session
        WTF_CSRF_CHECK_DEFAULT=False,  # pages check it themselves; the API and callbacks use no cookie
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session
        WTF_CSRF_SSL_STRICT=False,  # it needs a Referer, which our Referrer-Policy suppresses
    )
    csrf.init_app(app)


@cache
def _signing_key(api_keys: tuple[str, ...]) -> bytes:
    """Derive the key that signs the cookies from all API keys. A change of them thus signs everybody out.

    An attacker can get a cookie and guess API keys offline, so scrypt makes each guess slow. From all keys:
    the holder of one of them must not be able to sign a cookie.
    """
    return hashlib.scrypt(
        ",".join(api_keys).encode(), salt=b"the session's cookie", n=2**14, r=8, p=1, dklen=32
    )


def require_api_key() -> None:
    """Require the API key, as a Bearer token or as the password of HTTP Basic.

    401: no key, or a wrong one. 403: a change with a key that may only read, or that another site's page
    triggered (CSRF), as the browser adds the Basic password by itself.
    """
    key = key_of_request()
    if key is None:
        raise KeyNeeded(_WRONG_KEY if request.authorization else None)
    if request.method in _SAFE_METHODS:
        return
    if not key.may_write:
        raise Forbidden(_ONLY_READS)
    if _comes_from_elsewhere():
        raise Forbidden("Another site's page may not change anything here.")


def _comes_from_elsewhere() -> bool:
    """Tell whether another site's page made the browser send this request.

    Over plain HTTP browsers send no Sec-Fetch-Site, only the Origin.
    """
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        return True
    origin = request.headers.get("Origin")
    if origin is None:
        return False
    ours = {_host(request.host), _host(urlsplit(current_settings().public_url or "").netloc)}
    try:
        theirs = _host(urlsplit(origin).netloc)
    except ValueError:  # no browser sends such a one
        return True
    return theirs not in ours - {""}


def require_visitor() -> None:
    """Require a session or the API key. 401 without either. 403: a change with a key that may only read."""
    key = None if session.get(_SIGNED_IN) else key_of_request()
    if not session.get(_SIGNED_IN) and key is None:
        raise SignInNeeded
    if request.method not in _SAFE_METHODS and not _may_change(key):
        raise Forbidden(_ONLY_READS)


def may_change() -> bool:
    """Tell whether the visitor may change something. A page offers no button to one who may only read."""
    return _may_change(None if session.get(_SIGNED_IN) else key_of_request())


def _may_change(key: ApiKey | None) -> bool:
    """Tell whether a visitor with a key may change something, or one with a session."""
    return not session.get(_MAY_ONLY_READ) if key is None else key.may_write


def require_form_of_ours() -> None:
    """Require that a change comes from one of our own forms. 400: it does not. 413: it is too long."""
    if request.method in _SAFE_METHODS:
        return
    request.max_content_length = _LONGEST_FORM_BYTES
    with stall_guard.reading():
        request.form  # noqa: B018 - this reads the body, which may stall
    try:
        csrf.protect()
    except CSRFError:
        raise BadInput(_NOT_OUR_FORM) from None


def sign_in(key: str) -> bool:
    """Sign the visitor in if `key` is an API key. Returns whether it is.

    429: it is not, after many wrong ones.
    """
    ours = find_key(current_settings().api_keys, key)
    if ours is None:
        note_wrong_key()
        return False
    session.clear()  # drop anything set before sign-in (session fixation)
    session.permanent = True
    session[_SIGNED_IN] = True
    if not ours.may_write:
        session[_MAY_ONLY_READ] = True
    return True


def sign_out() -> None:
    """End the visitor's session."""
    session.clear()


def has_session() -> bool:
    """Tell whether the visitor has a session, and so can sign out."""
    return bool(session.get(_SIGNED_IN))


def carries_key() -> bool:
    """Tell whether the request carries an API key."""
    return key_of_request() is not None


def key_of_request() -> ApiKey | None:
    """Return the API key that the request carries, if it is one of ours.

    429: it carries a wrong one, after many of them.
    """
    basic = request.authorization
    secret = bearer() or (basic.password if basic else None)
    key = find_key(current_settings().api_keys, str(secret)) if secret else None
    if secret and key is None and not request.environ.get(_IS_NOTED):
        request.environ[_IS_NOTED] = True  # a request is one guess, however often we look at its key
        note_wrong_key()
    return key


def bearer() -> str | None:
    """Return the request's Bearer token; None for a request without one."""
    # Do not use werkzeug's parser: it reads a Bearer token with "=" as a list of parameters.
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return (token.strip() or None) if scheme.lower() == "bearer" else None
