"""Signing in and out, and showing the callback URL to a visitor who has signed in."""

import logging

from flask import Blueprint, Response, current_app, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from receiver.web import auth
from receiver.web.current import address, current_settings

log = logging.getLogger(__name__)
blueprint = Blueprint("sign_in", __name__)
blueprint.before_request(auth.require_form_of_ours)


@blueprint.get("/sign-in")
def show_sign_in() -> ResponseReturnValue:
    """Show the sign-in form: 200. 303 to the overview for a visitor who has signed in."""
    if auth.has_session():
        return redirect(url_for("overview.show"), 303)
    return render_template("sign_in.html", following=_following(request.args.get("next", "")))


@blueprint.post("/sign-in")
def sign_in() -> ResponseReturnValue:
    """Sign in with the API key: 303 to the page that was asked for.

    401 with the form: a wrong key. 429: a wrong one, after many of them.
    """
    following = _following(request.form.get("next", ""))
    if auth.sign_in(request.form.get("key", "").strip()):
        return redirect(following, 303)
    log.warning("Sign-in with a wrong API key from %s.", request.remote_addr)
    return render_template("sign_in.html", following=following, refused=True), 401


@blueprint.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    """End the visitor's session: 303 to the sign-in form."""
    auth.sign_out()
    return redirect(url_for("sign_in.show_sign_in"), 303)


@blueprint.post("/callback-url")
def tell_callback_url() -> ResponseReturnValue:
    """Return the callback URL with its secret token: 200 as text. 401: not signed in."""
    auth.require_visitor()
    token = current_settings().callback_tokens[0]
    return Response(f"{address()}/callbacks/{token}\n", mimetype="text/plain")


@blueprint.get("/favicon.ico")
def show_icon() -> ResponseReturnValue:
    """Send the icon: 200. Browsers request this path when they show something other than a page."""
    return current_app.send_static_file("favicon.svg")


def _following(path: str) -> str:
    """Return where to go after sign-in: `path` if it is on this site, else the overview."""
    ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if ours else url_for("overview.show")
