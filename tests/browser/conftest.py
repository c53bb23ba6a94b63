"""A real browser against the real processes: gunicorn, and the reconciler where a test starts it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright

from receiver.ledger.engine.db import init_database
from receiver.ledger.models import database
from tests import chromium
from tests.processes import API_KEY, Backstop
from tests.upstream import StandIn
from tests.upstream.images import png

MISSING = f"the pages were NOT tested in a browser: {chromium.MISSING}"


PICTURES = "https://pictures.example"  # of upstream, whose addresses are https; "gone.png" is gone


def _send_picture(route: Route) -> None:
    name = route.request.url.rpartition("/")[2]
    if name == "gone.png":
        route.abort("addressunreachable")
    else:
        route.fulfill(body=png(name), content_type="image/png")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium.find()
    if path is None:
        assert not os.environ.get("CI"), MISSING
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=chromium.OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def backstop(tmp_path: Path, stand_in: StandIn) -> Iterator[Backstop]:
    """A deployment whose web process runs, with its ledger on SQLite, to which this process is bound too."""
    with Backstop(tmp_path, stand_in.url) as backstop:
        backstop.migrate()
        init_database(backstop.database_url)
        # Not longer, because it waits so long for what the browser keeps open when it ends.
        backstop.start_web("--keep-alive", "1")
        yield backstop
    database.obj.close_all()


@pytest.fixture
def open_browser(browser: Browser, backstop: Backstop) -> Iterator[Callable[..., Page]]:
    """Opens a page in a browser of its own: open_browser(color_scheme="dark"). It is signed in.

    In the end nothing may have gone wrong in any of them: no error in the console, nothing that the
    Content-Security-Policy forbade, no dialog, and no request to elsewhere but for upstream's pictures.
    """
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def open_it(signed_in: bool = True, **options: object) -> Page:
        context = browser.new_context(
            base_url=backstop.url,
            **{"viewport": chromium.DESKTOP, "locale": "en-GB", "timezone_id": "UTC"} | options,
        )
        contexts.append(context)
        context.set_default_timeout(15_000)
        context.route(f"{PICTURES}/*", _send_picture)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
        if signed_in:
            page.goto("/sign-in")
            page.get_by_label("API key").fill(API_KEY)
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url("/")
        return page

    open_it.wrong = wrong  # type: ignore[attr-defined]  # a test that expects something clears it
    yield open_it
    for context in contexts:
        context.close()
    assert wrong == []
