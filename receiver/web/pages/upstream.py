"""The forms of the overview that have upstream asked: probe while it is paused, discover."""

from flask import redirect, request, url_for
from flask.typing import ResponseReturnValue

from receiver.web import upstream_actions
from receiver.web.errors import BadInput
from receiver.web.pages.base import page_blueprint

blueprint = page_blueprint("upstream_pages")

_ORDERS = {"probe": upstream_actions.probe_or_409, "discover": upstream_actions.discover_or_409}


@blueprint.post("/upstream")
def order() -> ResponseReturnValue:
    """Order a probe or a discovery: 303 to the overview. 400: another `do`. 409: it cannot be done now."""
    do = request.form.get("do", "")
    if do not in _ORDERS:
        raise BadInput("do must be probe or discover.")
    _ORDERS[do]()
    return redirect(url_for("overview.show"), 303)
