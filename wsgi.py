"""The composition root of the web process: gunicorn and the flask command find `app` here."""

from receiver.app import create_app
from receiver.config import Settings
from receiver.logs import configure_logging

configure_logging()
app = create_app(Settings.from_env())
