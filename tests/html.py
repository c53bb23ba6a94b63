"""Parses pages for tests: their text, links and forms."""

import html
import re
from datetime import timedelta

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from receiver.clock import utcnow
from receiver.ledger import runs

SCRIPT = "<script>alert('x')</script>\"'&"


def words(page: str) -> str:
    """Return a page's visible text."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", page.partition("<main")[2])))


def links(page: str) -> list[str]:
    """Return all addresses that a page refers to."""
    found = re.findall(r'(?:href|src|action|poster|hx-get)="([^"]*)"', page)
    return [html.unescape(url) for url in found]


def listed(page: str) -> list[str]:
    """Return the ids of the tasks that a page lists, from its links."""
    return re.findall(r'<a class="name" href="/tasks/([^"]*)"', page)


def csrf_token(page: str) -> str:
    """Return the CSRF token of a page's forms."""
    return re.findall(r'name="csrf_token" value="([^"]+)"', page)[0]


def sign_in(client: FlaskClient, key: str, following: str = "/") -> TestResponse:
    """Sign in through the form."""
    token = csrf_token(client.get("/sign-in").text)
    return client.post("/sign-in", data={"csrf_token": token, "key": key, "next": following})


def run_now(ago: float = 5, **counts: object) -> int:
    """Record a run of the reconciler that started some seconds ago and took one second. Return its id."""
    started_at = utcnow() - timedelta(seconds=ago)
    run_id = runs.open_run("test:1", started_at)
    runs.close_run(run_id, started_at + timedelta(seconds=1), counts)
    return run_id
