"""The settings of the application that serves the present request."""

from flask import current_app

from receiver.config import Settings


def current_settings() -> Settings:
    """Return what create_app() was given."""
    settings: Settings = current_app.extensions["backstop"]
    return settings
