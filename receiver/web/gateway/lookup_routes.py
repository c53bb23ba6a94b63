"""The route of look-ups, `POST /<service>/tasks`, and what it works with."""

import re
from collections.abc import Iterable

from flask import Blueprint, Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from receiver.config import Settings
from receiver.web.gateway import answers
from receiver.web.gateway.access import require_caller
from receiver.web.gateway.asking import add_asker
from receiver.web.gateway.lookups import ASKED, look_up
from receiver.web.gateway.settled import add_answers
from receiver.web.gateway.unknown import NoTask, add_questions, failure


def add_lookups(app: Flask, settings: Settings) -> None:
    """Add the look-ups of every service that has them.

    They are no part of the requests that may last: 200 slow submissions must not make look-ups fail.
    """
    add_asker(app, settings)
    add_questions(app, settings)
    add_answers(app)
    app.url_map.converters["asked"] = _one_of(ASKED)
    blueprint = Blueprint("lookups", __name__)
    blueprint.before_request(require_caller)
    blueprint.register_error_handler(NoTask, failure)
    blueprint.register_error_handler(HTTPException, answers.answer)
    blueprint.register_error_handler(Exception, answers.answer_unexpected)
    rule = "/<asked:service>/tasks"
    blueprint.add_url_rule(rule, view_func=look_up, methods=["POST"], provide_automatic_options=False)
    app.register_blueprint(blueprint)


def _one_of(names: Iterable[str]) -> type[BaseConverter]:
    """Return what matches one of the names."""

    class OneOf(BaseConverter):
        part_isolating = False  # so that it is compared with the rule for all paths, which has less text
        regex = "(?:" + "|".join(map(re.escape, names)) + ")"

    return OneOf
