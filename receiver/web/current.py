"""The settings of the application that serves the current request."""

from flask import current_app, request

from receiver.config import Settings
from receiver.web.response_view import stand_in_of


def current_settings() -> Settings:
    """Return the settings that create_app() was given."""
    settings: Settings = current_app.extensions["backstop"]
    return settings


def address() -> str:
    """Return PUBLIC_URL, or the address in the request if that is not set. It has no trailing slash."""
    return current_settings().public_url or request.host_url.rstrip("/")


def stand_in() -> str | None:
    """Return the origin of a local stand-in for upstream, from which pages may load; None without one."""
    return stand_in_of(current_settings().api_base_url)
