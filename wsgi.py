"""The composition root of the web process: gunicorn and the flask command find `app` here."""

import logging

import click

from receiver.app import create_app
from receiver.config import Settings
from receiver.logs import configure_logging
from receiver.sentry import start_sentry

settings = Settings.from_env()
# A command prints what it does. Lines of the log would break up its output and its progress.
_in_command = click.get_current_context(silent=True) is not None
configure_logging(settings.log_format, logging.WARNING if _in_command else logging.INFO)
start_sentry(settings.sentry_dsn)
app = create_app(settings)
