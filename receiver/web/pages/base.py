"""What all pages share: sign-in, the Content-Security-Policy, and template filters."""

from collections.abc import Iterable, Mapping
from urllib.parse import urlencode

from flask import Blueprint, Flask, Response, request

from receiver.clock import to_iso
from receiver.redact import mask_credentials
from receiver.web import auth, formatting, response_view
from receiver.web.current import address, current_settings, is_relayed, stand_in

_NOT_FOR_BROWSERS = {"static", "callbacks.receive", "lookups.look_up"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'{pictures};"
    " media-src {media}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_FILTERS = (
    *(formatting.exact, formatting.ago, formatting.took, formatting.lasted, formatting.size),
    *(formatting.counted, formatting.share, formatting.shown, formatting.heading, formatting.trust),
    *(formatting.next_lookup, formatting.kind_name, formatting.ahead, formatting.span),
)


def page_blueprint(name: str) -> Blueprint:
    """Return a blueprint whose pages require a session or the API key."""
    blueprint = Blueprint(name, __name__)
    blueprint.before_request(auth.require_visitor)
    blueprint.before_request(auth.require_form_of_ours)
    return blueprint


def add_to_pages(app: Flask) -> None:
    """Add the templates' filters and the answers' security headers."""
    shared = (to_iso, with_query, mask_credentials, response_view.problem_of, response_view.printed)
    for each in (*_FILTERS, *shared):
        app.add_template_filter(each)
    app.add_template_filter(lambda task: response_view.thumbnail_of(task, stand_in()), "thumbnail_of")
    app.add_template_filter(zip, "zip")
    app.add_template_global(auth.may_change)  # imported macros see globals alone
    app.context_processor(_for_templates)
    app.after_request(_protect)


def given(fields: Iterable[str]) -> dict[str, str]:
    """Return those fields of the URL's query that are not empty. Forms send empty ones too."""
    return {name: text for name in fields if (text := request.args.get(name, "").strip())}


def with_query(path: str, query: Mapping[str, object]) -> str:
    """Return a path with a query. `url_for` takes no parameter of the name `endpoint`."""
    return f"{path}?{urlencode(query)}" if query else path


def _for_templates() -> dict[str, object]:
    return {
        "thumbnails": current_settings().thumbnails,
        "signed_in": auth.has_session,
        "address": address,
    }


def _picture_sources() -> list[str]:
    if not current_settings().thumbnails:
        return []
    return ["https:", origin] if (origin := stand_in()) else ["https:"]


def _protect(response: Response) -> Response:
    """Add headers that limit what a page may load, and forbid browsers to store answers."""
    if is_relayed():
        return response
    if response.mimetype == "text/html":
        sources = [f" {source}" for source in _picture_sources()]
        policy = _POLICY.format(pictures="".join(sources), media="".join(sources).strip() or "'none'")
        response.headers["Content-Security-Policy"] = policy
    if request.endpoint not in _NOT_FOR_BROWSERS:
        response.headers.update(_HEADERS)
    return response
