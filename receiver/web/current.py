"""The settings of the application that serves the present request."""

from flask import current_app, request

from receiver.config import Settings
from receiver.web.response_view import stand_in_of


def current_settings() -> Settings:
    """Return what create_app() was given."""
    settings: Settings = current_app.extensions["backstop"]
    return settings


def address() -> str:
    """Return this deployment's address, without a slash at its end: the public one, or the request's own."""
    return current_settings().public_url or request.host_url.rstrip("/")


def stand_in() -> str | None:
    """Return the origin of a stand-in for upstream on this machine, from which pages may load."""
    return stand_in_of(current_settings().api_base_url)
