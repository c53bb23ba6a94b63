"""A real browser against the real processes: gunicorn, and the reconciler where a test starts it."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from receiver.ledger.engine.db import init_database
from receiver.ledger.models import database
from tests import chromium
from tests.processes import API_KEY, Backstop
from tests.upstream import StandIn
from tests.upstream.images import png

MISSING = f"the pages were NOT tested in a browser: {chromium.MISSING}"


_WITHIN_MS = 60_000  # a busy machine may be slow
expect.set_options(timeout=_WITHIN_MS)
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


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Backstop]:
    """A deployment for all tests that leave its web process alone, with its ledger on SQLite."""
    with _deployment(tmp_path_factory.mktemp("browser"), sqlite_template) as backstop:
        yield backstop


@pytest.fixture
def backstop(deployment: Backstop, stand_in: StandIn, sqlite_template: Path) -> Iterator[Backstop]:
    """The deployment of all tests, whose ledger is empty; this process is bound to it too."""
    _restore(deployment.directory / "backstop.db", sqlite_template)
    deployment.environ["ACEDATACLOUD_API_BASE_URL"] = stand_in.url  # whom the test's reconcilers ask
    _bind_to(deployment)
    yield deployment
    while len(deployment.processes) > 1:
        deployment.stop(deployment.processes.pop())
    database.obj.close_all()


@pytest.fixture
def own_backstop(tmp_path: Path, sqlite_template: Path) -> Iterator[Backstop]:
    """A deployment of the test's own, whose web process it may end. Its reconciler may be silent for long."""
    with _deployment(tmp_path, sqlite_template, RECONCILE_INTERVAL=3600) as backstop:
        _bind_to(backstop)
        yield backstop
    database.obj.close_all()


@contextmanager
def _deployment(directory: Path, template: Path, **variables: object) -> Iterator[Backstop]:
    shutil.copy(template, directory / "backstop.db")
    with Backstop(directory, "http://127.0.0.1:9", **variables) as backstop:
        # Not longer, because it waits so long for what the browser keeps open when it ends.
        backstop.start_web("--keep-alive", "1")
        yield backstop


def _bind_to(backstop: Backstop) -> None:
    """Bind this process to a deployment's ledger. What a test writes waits for what the web process writes."""
    init_database(backstop.database_url)
    database.execute_sql("PRAGMA busy_timeout = 60000")


def _restore(path: Path, template: Path) -> None:
    """Make a database that is in use what the template is, in one transaction."""
    with closing(sqlite3.connect(template)) as source, closing(sqlite3.connect(path)) as target:
        source.backup(target)


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
        context.set_default_timeout(_WITHIN_MS)
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
