"""What page, API and command each offer, and why one of them does not.

A new route, method, command or operation of openapi.json that is not in the table fails.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import click
import pytest
from flask import Flask
from flask.testing import FlaskClient

from receiver.web.api.operations import OPERATIONS

_SERVES = "it is for programs that speak HTTP"
_MACHINE = "it needs the machine's files, settings or network"
_PERSON = "it belongs to a person's session"
_LOGGED = "the log has a line for each run, and /readyz and /metrics the newest"
_HIDDEN = "a program needs none of it, and it names the machine's addresses"


class Offer(NamedTuple):
    """What can be done: by which pages, by which routes of the API, by which commands, and why not by all.

    A route is a method and a path. The API's are those of openapi.json.
    """

    what: str
    page: tuple[str, ...] = ()
    api: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    why_not: str = ""


OFFERS = (
    Offer("list tasks", ("GET /tasks",), ("GET /api/tasks",), ("tasks",)),
    Offer("see one task", ("GET /tasks/<>",), ("GET /api/tasks/<>",), ("task",)),
    Offer("register tasks", (), ("POST /api/tasks",), ("register",), "a program submits, and so registers"),
    Offer("ask now", ("POST /tasks/<>",), ("POST /api/tasks/<>/reconcile",), ("ask",)),
    Offer("probe while upstream is paused", ("POST /upstream",), ("POST /api/upstream/probe",), ("probe",)),
    Offer("discover now", ("POST /upstream",), ("POST /api/upstream/discover",), ("discover",)),
    Offer("acknowledge", ("POST /tasks/<>",), ("POST /api/tasks/<>/acknowledge",), ("acknowledge",)),
    Offer(
        "acknowledge all that a filter holds",
        ("POST /tasks",),
        ("POST /api/tasks/acknowledge",),
        (),
        "`tasks --unacknowledged --json` names them for `acknowledge`",
    ),
    Offer(
        "download tasks",
        ("GET /tasks.csv", "GET /tasks.jsonl"),
        (),
        ("tasks",),
        "the API's list goes on by its cursor",
    ),
    Offer("list callbacks", ("GET /deliveries",), ("GET /api/deliveries",), ("deliveries",)),
    Offer(
        "see a callback's bytes",
        ("GET /deliveries/<>", "GET /deliveries/<>/body"),
        (),
        (),
        "strangers may have sent them: a person looks at them on the page",
    ),
    Offer("list the reconciler's runs", ("GET /runs",), (), ("runs",), _LOGGED),
    Offer("see a run's look-ups", ("GET /runs/<>",), (), (), "`task` and the API's task have its look-ups"),
    Offer("list forwards", ("GET /forwards",), ("GET /api/forwards",), ("forward list",)),
    Offer(
        "see a forward",
        ("GET /forwards/<>", "GET /forwards/<>/body"),
        ("GET /api/forwards/<>",),
        ("forward show",),
    ),
    Offer("send one again", ("POST /forwards/<>",), ("POST /api/forwards/<>/resend",), ("forward resend",)),
    Offer(
        "send all again that a filter holds",
        ("GET /forwards/resend", "POST /forwards/resend"),
        ("POST /api/forwards/resend",),
        ("forward resend",),
    ),
    Offer(
        "follow a resending",
        ("GET /forwards",),
        ("GET /api/resendings", "GET /api/resendings/<>"),
        ("forward resendings",),
    ),
    Offer(
        "stop a resending",
        ("POST /resendings/<>",),
        ("POST /api/resendings/<>/stop",),
        ("forward stop",),
    ),
    Offer(
        "dismiss a forward", ("POST /forwards/<>",), ("POST /api/forwards/<>/dismiss",), ("forward dismiss",)
    ),
    Offer(
        "see endpoints",
        ("GET /forwards", "GET /endpoints/<>"),
        ("GET /api/endpoints",),
        ("forward endpoints",),
    ),
    Offer(
        "pause and resume an endpoint",
        ("POST /endpoints/<>",),
        ("POST /api/endpoints/<>/pause", "POST /api/endpoints/<>/resume"),
        ("forward pause", "forward resume"),
    ),
    Offer("send a test event", ("POST /endpoints/<>",), ("POST /api/endpoints/<>/test",), ("forward test",)),
    Offer("describe the API", (), ("GET /openapi.json",), (), _SERVES),
    Offer("read all events", (), ("GET /api/events",), ("events",), "the pages show a task's own events"),
    Offer(
        "see unclear submissions",
        ("GET /",),
        ("GET /api/submissions/unclear",),
        ("status",),
    ),
    Offer("see whether all is well", ("GET /",), ("GET /readyz",), ("status",)),
    Offer("watch the service", (), ("GET /healthz", "GET /metrics"), (), "it is for monitors"),
    Offer("check the deployment", (), (), ("check",), _MACHINE),
    Offer("see settings and sizes", ("GET /settings",), (), ("settings",), _HIDDEN),
    Offer(
        "get the callback URL",
        ("POST /callback-url",),
        (),
        ("callback-url", "rotate-token", "next-steps"),
        "it holds a secret",
    ),
    Offer("receive callbacks", (), ("POST /callbacks/<>", "POST /callbacks/<>/<>"), (), _SERVES),
    Offer(
        "relay",
        (),
        (
            "POST /<>/tasks",
            *(f"{method} /<>" for method in ("GET", "POST", "PUT", "PATCH", "DELETE")),
            *(f"{method} /<>/<>" for method in ("GET", "POST", "PUT", "PATCH", "DELETE")),
        ),
        (),
        _SERVES,
    ),
    Offer("sign in and out", ("GET /sign-in", "POST /sign-in", "POST /sign-out"), (), (), _PERSON),
    Offer("dress the pages", ("GET /favicon.ico", "GET /static/<>"), (), (), "files of the pages"),
    Offer(
        "keep the ledger",
        (),
        (),
        ("migrate", "export", "import", "backup", "reread", "prune"),
        _MACHINE,
    ),
)


@pytest.fixture
def app(client: FlaskClient) -> Flask:
    return client.application


def _routes(app: Flask) -> set[str]:
    """Return each method of each route, like `GET /tasks/<>`."""
    return {
        f"{method} {re.sub('<[^>]*>', '<>', rule.rule).rstrip('/') or '/'}"
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }


def _described() -> set[str]:
    """Return the routes of openapi.json."""
    return {f"{one.method.upper()} {re.sub('{[^}]*}', '<>', one.path)}" for one in OPERATIONS}


def _commands(app: Flask) -> Iterator[str]:
    for name, command in app.cli.commands.items():
        if isinstance(command, click.Group):
            yield from (f"{name} {inner}" for inner in command.commands)
        else:
            yield name


def test_every_method_of_every_route_is_in_the_table_and_no_other(app):
    assert {name for offer in OFFERS for name in (*offer.page, *offer.api)} == _routes(app)


def test_the_apis_routes_are_those_that_openapi_json_describes():
    assert {name for offer in OFFERS for name in offer.api} == _described()


def test_every_command_is_in_the_table_and_no_other(app):
    assert {name for offer in OFFERS for name in offer.command} == set(_commands(app))


def test_what_is_not_offered_everywhere_says_why():
    unexplained = [
        offer.what
        for offer in OFFERS
        if bool(offer.page and offer.api and offer.command) == bool(offer.why_not)
    ]
    assert unexplained == []
    assert max(Counter(offer.what for offer in OFFERS).values()) == 1


def test_every_command_has_a_help_text_with_an_example_and_every_option_has_one(app):
    mute = []
    for name in _commands(app):
        command: click.Command = app.cli
        for word in name.split():
            assert isinstance(command, click.Group)
            command = command.commands[word]
        is_shown = re.search(rf"^\s*flask --app wsgi {name}\b", command.help or "", re.MULTILINE)
        mute += [] if is_shown else [name]
        mute += [
            f"{name} {one.name}" for one in command.params if isinstance(one, click.Option) and not one.help
        ]
    assert mute == []
