"""Gives each request an id, which all lines that are logged for it have."""

import os
import re

from flask import Flask, request

from receiver.logs import request_id

_GOOD = re.compile(r"[\w.:=-]{1,128}")  # a proxy's id, such as Heroku's


def add_request_ids(app: Flask) -> None:
    """Take the id from X-Request-Id, or make one."""
    app.before_request(_begin)


def _begin() -> None:
    given = request.environ.get("HTTP_X_REQUEST_ID", "")
    request_id.set(given if given and _GOOD.fullmatch(given) else os.urandom(8).hex())
