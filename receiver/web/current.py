"""The settings of the application that serves the current request."""

from flask import Flask, current_app, g, request

from receiver.config import Settings
from receiver.ledger.paces import Paces
from receiver.ledger.timetable import Timetable
from receiver.web.response_view import stand_in_of


def current_settings() -> Settings:
    """Return the settings that create_app() was given."""
    settings: Settings = current_app.extensions["backstop"]
    return settings


def current_timetable() -> Timetable:
    """Return the times of look-ups, by what this process knows of how long tasks take."""
    return paces_of(current_app).timetable


def paces_of(app: Flask) -> Paces:
    """Return what an application knows of how long tasks take."""
    paces: Paces = app.extensions["backstop_paces"]
    return paces


def address() -> str:
    """Return PUBLIC_URL, or the address in the request if that is not set. It has no trailing slash."""
    return current_settings().public_url or request.host_url.rstrip("/")


def note_relayed() -> None:
    """Note that the current request's answer is upstream's, whose headers stay as they are."""
    g.is_relayed = True


def is_relayed() -> bool:
    """Tell whether the current request's answer is upstream's."""
    return bool(g.get("is_relayed"))


def stand_in() -> str | None:
    """Return the origin of a local stand-in for upstream, from which pages may load; None without one."""
    return stand_in_of(current_settings().api_base_url)
