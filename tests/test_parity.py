"""What page, API and command each offer, and why one of them does not.

A new route or command that is not in the table fails.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import click
import pytest
from flask import Flask
from flask.testing import FlaskClient

_READ_ONE = "one is read where it is listed"
_STOPS = "Ctrl-C of the command that ordered it"
_SERVES = "it is for programs that speak HTTP"
_MACHINE = "it needs the machine's files, settings or network"
_PERSON = "it belongs to a person's session"
_LOGGED = "the log has a line for each run, and /readyz and /metrics the newest"


class Offer(NamedTuple):
    """What can be done, by which pages, API routes and commands, and why not by the others."""

    what: str
    page: tuple[str, ...] = ()
    api: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    why_not: str = ""


OFFERS = (
    Offer("list tasks", ("task_pages.show_list",), ("tasks.list_tasks",), ("tasks",)),
    Offer("see one task", ("task_pages.show_task",), ("tasks.show_task",), ("task",)),
    Offer("register tasks", (), ("tasks.register",), ("register",), "a program submits, and so registers"),
    Offer("ask now", ("task_pages.ask_or_acknowledge",), ("tasks.ask_now",), ("ask",)),
    Offer("acknowledge", ("task_pages.ask_or_acknowledge",), ("tasks.acknowledge",), ("acknowledge",)),
    Offer(
        "acknowledge all that a filter holds",
        ("task_pages.acknowledge_listed",),
        ("tasks.acknowledge_some",),
        (),
        "`tasks --unacknowledged --json` names them for `acknowledge`",
    ),
    Offer(
        "download tasks",
        ("task_pages.export_csv", "task_pages.export_json_lines"),
        (),
        ("tasks",),
        "the API's list goes on by its cursor",
    ),
    Offer(
        "list callbacks",
        ("delivery_pages.show_list",),
        ("deliveries.list_them",),
        ("deliveries",),
    ),
    Offer(
        "see a callback's bytes",
        ("delivery_pages.show_delivery", "delivery_pages.download_body"),
        (),
        (),
        "strangers may have sent them: a person looks at them on the page",
    ),
    Offer("see the reconciler's runs", ("run_pages.list_runs", "run_pages.show_run"), (), (), _LOGGED),
    Offer("list forwards", ("forward_pages.show_list",), ("forwards.list_them",), ("forward list",)),
    Offer(
        "see a forward",
        ("forward_pages.show_forward", "forward_pages.download_body"),
        ("forwards.show",),
        ("forward show",),
    ),
    Offer(
        "send again",
        (
            "forward_pages.resend_or_dismiss",
            "forward_pages.ask_to_resend",
            "forward_pages.resend_all",
        ),
        ("forwards.resend", "forwards.resend_all"),
        ("forward resend",),
    ),
    Offer(
        "follow and stop a resending",
        ("forward_pages.stop",),
        ("forwards.list_resendings", "forwards.show_resending", "forwards.stop"),
        (),
        _STOPS,
    ),
    Offer(
        "dismiss a forward",
        ("forward_pages.resend_or_dismiss",),
        ("forwards.dismiss",),
        ("forward dismiss",),
    ),
    Offer(
        "see endpoints",
        ("endpoint_pages.show_forwards",),
        ("endpoints.list_them",),
        ("forward endpoints",),
    ),
    Offer(
        "pause and resume an endpoint",
        ("endpoint_pages.change_or_test",),
        ("endpoints.pause", "endpoints.resume"),
        ("forward pause", "forward resume"),
    ),
    Offer(
        "send a test event",
        ("endpoint_pages.change_or_test",),
        ("endpoints.test",),
        ("forward test",),
    ),
    Offer("describe the API", (), ("openapi.show",), (), _SERVES),
    Offer("read all events", (), ("events.list_them",), (), _SERVES),
    Offer("see unclear submissions", ("overview.show",), ("submissions.show_unclear",), (), _SERVES),
    Offer(
        "see whether all is well",
        ("overview.show",),
        ("health.healthz", "health.readyz", "metrics.metrics"),
        ("check",),
    ),
    Offer("see the settings", ("settings_page.show",), (), ("check", "next-steps"), "they hold secrets"),
    Offer(
        "get the callback URL",
        ("sign_in.tell_callback_url",),
        (),
        ("callback-url", "rotate-token"),
        "it holds a secret",
    ),
    Offer("receive callbacks", (), ("callbacks.receive",), (), _SERVES),
    Offer("relay", (), ("gateway.read", "gateway.write", "lookups.look_up"), (), _SERVES),
    Offer(
        "sign in and out", ("sign_in.show_sign_in", "sign_in.sign_in", "sign_in.sign_out"), (), (), _PERSON
    ),
    Offer("dress the pages", ("sign_in.show_icon", "static"), (), (), "files of the pages"),
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


def _commands(app: Flask) -> Iterator[str]:
    for name, command in app.cli.commands.items():
        if isinstance(command, click.Group):
            yield from (f"{name} {inner}" for inner in command.commands)
        else:
            yield name


def test_every_route_and_command_is_in_the_table_and_no_other(app):
    offered = {name for offer in OFFERS for name in (*offer.page, *offer.api, *offer.command)}
    assert offered == set(app.view_functions) | set(_commands(app))


def test_what_is_not_offered_everywhere_says_why():
    unexplained = [
        offer.what
        for offer in OFFERS
        if not (offer.page and offer.api and offer.command) and not offer.why_not
    ]
    assert unexplained == []
    assert max(Counter(offer.what for offer in OFFERS).values()) == 1


def test_every_command_has_a_help_text_and_every_option_too(app):
    mute = []
    for name in _commands(app):
        command: click.Command = app.cli
        for word in name.split():
            assert isinstance(command, click.Group)
            command = command.commands[word]
        mute += [] if command.help else [name]
        mute += [
            f"{name} {one.name}" for one in command.params if isinstance(one, click.Option) and not one.help
        ]
    assert mute == []
