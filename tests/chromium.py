"""Where the browser is that the pages are tested in, and how it is started."""

import shutil

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# It runs as root in containers, and asks Google's servers about itself unless told not to.
OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run"),
]
MISSING = "no Chromium is installed (on Debian: apt-get install chromium)"


def find() -> str | None:
    """Return the path of the machine's Chromium; None when it has none."""
    return next(filter(None, map(shutil.which, _NAMES)), None)
