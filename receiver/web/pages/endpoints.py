"""The forms beside an endpoint on the page of forwards: pause, resume, send a test event."""

from flask import redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from receiver.clock import utcnow
from receiver.web import forward_actions
from receiver.web.errors import BadInput
from receiver.web.pages import forward_view
from receiver.web.pages.base import page_blueprint, with_query

blueprint = page_blueprint("endpoint_pages")

_HOLDS = {"pause": forward_actions.pause, "resume": forward_actions.resume}


@blueprint.get("/endpoints/<int:endpoint_id>")
def show_forwards(endpoint_id: int) -> ResponseReturnValue:
    """Lead to the list of an endpoint's forwards: 303. A browser may ask this after a test event."""
    return redirect(with_query(url_for("forward_pages.show_list"), {"endpoint": endpoint_id}), 303)


@blueprint.post("/endpoints/<int:endpoint_id>")
def change_or_test(endpoint_id: int) -> ResponseReturnValue:
    """Pause or resume an endpoint: 303 to the list. With `do=test` send a test event: 200 with the answer.

    400: another `do`. 404: no such endpoint. 409: FORWARD_URL does not name the endpoint to test.
    """
    do = request.form.get("do", "")
    if do == "test":
        trial = forward_actions.send_test_event(endpoint_id)
        return render_template(
            "trial.html",
            now=utcnow(),
            endpoint_id=endpoint_id,
            attempt=forward_view.trial_view(trial),
            body=forward_view.body_view(trial.body),
        )
    if do not in _HOLDS:
        raise BadInput("do must be pause, resume or test.")
    _HOLDS[do](endpoint_id)
    return redirect(url_for("forward_pages.show_list"), 303)
