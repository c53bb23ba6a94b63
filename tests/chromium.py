"""Finds and starts the browser for tests of the pages."""

import shutil

# The shell draws the same pages, without the windows of a whole browser: a third of the CPU time.
_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# Containers run it as root. By default it calls Google's servers.
OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run"),
]
MISSING = "no Chromium is installed (on Debian: apt-get install chromium-headless-shell)"


def find() -> str | None:
    """Return the path of this machine's Chromium; None without one."""
    return next(filter(None, map(shutil.which, _NAMES)), None)
