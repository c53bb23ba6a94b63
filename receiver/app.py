"""Builds the Flask application from the settings. This starts no thread and opens no connection."""

from collections.abc import Callable
from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import BaseConverter

from receiver.cli import add_commands
from receiver.config import Settings
from receiver.forward.sender import Sender
from receiver.ledger.engine.db import init_database, is_bound_to_another
from receiver.ledger.paces import Paces
from receiver.web import auth, callbacks, errors, sign_in
from receiver.web.api import (
    deliveries,
    endpoints,
    events,
    forwards,
    openapi,
    registering,
    submissions,
    tasks,
)
from receiver.web.api import upstream as upstream_api
from receiver.web.gateway.routes import add_gateway
from receiver.web.guesses import Guesses
from receiver.web.intake import Intake, intake_of
from receiver.web.pages import base, overview
from receiver.web.pages import deliveries as delivery_pages
from receiver.web.pages import endpoints as endpoint_pages
from receiver.web.pages import forwards as forward_pages
from receiver.web.pages import runs as run_pages
from receiver.web.pages import settings as settings_page
from receiver.web.pages import task as task_page
from receiver.web.pages import tasks as task_pages
from receiver.web.pages import upstream as upstream_pages
from receiver.web.request_ids import add_request_ids
from receiver.web.trial import trial_sender
from receiver.web.waiting import Waiting
from receiver.web.watch import health, metrics
from receiver.web.watch.reading import LedgerReader
from receiver.web.watch.watcher import Watcher

# While a database hangs, people wait for pages and platforms wait for /readyz.
_DATABASE_WITHIN_SECONDS = 10.0


def _watcher(app: Flask, settings: Settings) -> Watcher:
    return Watcher(settings, intake_of(app), Sender(allow_private_urls=True, connections=1))


class _App(Flask):
    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return `func`. None of our functions is asynchronous, and to look costs each request."""
        return func


class _Text(BaseConverter):
    """Matches any text, including slashes: other systems choose the refs and the task ids."""

    part_isolating = False
    regex = "(?s:.+)"  # including newlines


def create_app(settings: Settings) -> Flask:
    """Return the application that serves the ledger in `settings.database_url`.

    Raises RuntimeError when this process has another ledger: the models have one database, so an
    application that was made before would serve the wrong one.
    """
    if is_bound_to_another(settings.database_url):
        raise RuntimeError("This process already serves another database. Start a process for each.")
    init_database(
        settings.database_url,
        answer_within=_DATABASE_WITHIN_SECONDS,
        connections=settings.connections_each,
        for_callbacks=1,
    )
    app = _App(__name__, template_folder="web/pages/templates", static_folder="web/pages/static")
    _add_extensions(app, settings)
    _set_up_answers(app)
    _add_routes(app)
    add_request_ids(app)
    add_gateway(app, settings)
    auth.add_sessions(app, settings)
    base.add_to_pages(app)
    errors.add_handlers(app)
    add_commands(app)
    if settings.trusted_proxies:
        # Trust only headers that each proxy appends to. The host is not one of them: PUBLIC_URL has it.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies, x_proto=1, x_host=0)  # type: ignore[method-assign]
    return app


def _add_extensions(app: Flask, settings: Settings) -> None:
    app.extensions["backstop"] = settings
    app.extensions["backstop_intake"] = Intake(settings)
    app.extensions["backstop_ledger_reader"] = LedgerReader(settings, intake_of(app))
    app.extensions["backstop_guesses"] = Guesses()
    app.extensions["backstop_paces"] = Paces(settings.reconcile_grace)
    app.extensions["backstop_waiting"] = Waiting()
    app.extensions["backstop_trial_sender"] = trial_sender(settings)
    app.extensions["backstop_starts"] = [_watcher(app, settings).start]  # in each web worker


def _set_up_answers(app: Flask) -> None:
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's default provider has it
    # A redirect would lose a callback: the sender follows it with a GET that has no body.
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = False
    app.url_map.converters["text"] = _Text


def _add_routes(app: Flask) -> None:
    for module in (
        *(callbacks, health, metrics, sign_in),
        *(registering, tasks, deliveries, events, forwards, endpoints, submissions, openapi, upstream_api),
        *(overview, task_pages, task_page, delivery_pages, run_pages, forward_pages),
        *(endpoint_pages, settings_page, upstream_pages),
    ):
        app.register_blueprint(module.blueprint)
