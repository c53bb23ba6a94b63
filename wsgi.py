"""The composition root of the web process: gunicorn and the flask command find `app` here."""

from receiver.app import create_app
from receiver.config import Settings
from receiver.logs import configure_logging
from receiver.sentry import start_sentry

settings = Settings.from_env()
configure_logging(settings.log_format)
start_sentry(settings.sentry_dsn)
app = create_app(settings)
