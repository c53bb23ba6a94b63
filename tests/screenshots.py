"""make screenshots: every page in both themes, on desktop and phone; empty, busy, and in trouble.

They show the data of the demonstration. Those that the documents show also go into docs/screenshots.
"""

import random
import shutil
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from playwright.sync_api import Browser, Route, sync_playwright

from receiver.clock import utcnow
from receiver.ledger.engine.db import init_database
from receiver.ledger.models import Delivery, Lookup, ReconcileRun, Task, database
from receiver.ledger.pauses import current_pause
from receiver.ledger.reading import tally
from tests import chromium, demo, factories, told_past
from tests.past import SONGS
from tests.processes import REPOSITORY, Backstop, wait_until
from tests.upstream import Options, StandIn
from tests.upstream.images import png

WHERE, DOCS = REPOSITORY / "screenshots", REPOSITORY / "docs" / "screenshots"
PICTURES = "https://pictures.example"
VIEWPORTS = {"desktop": chromium.DESKTOP, "phone": chromium.PHONE}
IN_DOCS = ("busy-overview-light-desktop", "busy-task-light-desktop", "trouble-overview-light-desktop")
IN_DOCS += ("busy-overview-dark-phone", "busy-forwards-light-desktop")
TASKS = 40


def main() -> int:
    """Take all screenshots and return the exit code."""
    path = chromium.find()
    if path is None:
        print(f"No screenshots were made: {chromium.MISSING}.", file=sys.stderr)
        return 1
    shutil.rmtree(WHERE, ignore_errors=True)
    WHERE.mkdir()
    options = Options(**demo.OPTIONS, work=(0.1, 1.5))
    with (
        sync_playwright() as playwright,
        tempfile.TemporaryDirectory(prefix="backstop-screenshots-") as directory,
        StandIn(options) as upstream,
        playwright.chromium.launch(executable_path=path, args=chromium.OPTIONS) as browser,
    ):
        upstream.records.base_url = PICTURES  # pages load pictures only over https
        with demo.deployment(Path(directory), upstream) as backstop:
            backstop.migrate()
            init_database(backstop.database_url)
            backstop.start_web()
            _take(
                browser,
                backstop,
                "empty",
                {"overview": "/", "tasks": "/tasks", "forwards": "/forwards", "runs": "/runs"},
            )
            _make_busy(backstop, upstream)
            _take(browser, backstop, "busy", _busy_pages())
            _take_forwards(browser, backstop)
            backstop.start_web()
            backstop.start_reconciler()
            _make_trouble(backstop, upstream)
            pending = Task.get(Task.status == "pending", Task.type == "imagine")
            trouble = {"overview": "/", "runs": "/runs?asked=true", "tasks": "/tasks?status=pending"}
            _take(browser, backstop, "trouble", trouble | {"task-pending": f"/tasks/{pending.id}"})
        database.obj.close_all()
    DOCS.mkdir(exist_ok=True)
    for name in IN_DOCS:
        shutil.copy(WHERE / f"{name}.png", DOCS)
    print(f"{len(list(WHERE.iterdir()))} screenshots are in {WHERE}, those of the documents in {DOCS}.")
    return 0


def _take_forwards(browser: Browser, backstop: Backstop) -> None:
    """Take the pages about forwards, while nothing tells the endpoints that they show."""
    _stop(backstop)
    addresses = " ".join((told_past.APP, told_past.FAILING, told_past.GONE))
    told = {"FORWARD_URL": addresses, "FORWARD_SECRET": "whsec_" + "c2VjcmV0" * 4}
    backstop.environ |= told
    backstop.start_web()
    dead = told_past.make_told(utcnow())
    pages = {"forwards": "/forwards", "forwards-failed": "/forwards?status=failed"}
    _take(browser, backstop, "busy", pages | {"forward": f"/forwards/{dead}"})
    _stop(backstop)
    for name in told:
        del backstop.environ[name]


def _stop(backstop: Backstop) -> None:
    for process in backstop.processes:
        backstop.stop(process)


def _make_busy(backstop: Backstop, upstream: StandIn) -> None:
    _stop(backstop)
    demo.start(backstop, upstream)
    rng = random.Random(2)
    for _ in range(TASKS):
        demo.submit(rng, backstop)
    wait_until(lambda: tally.count_outcomes().pending == 0, seconds=60)
    factories.record(b'{"oops', ref="order-9", remote_addr="203.0.113.7")
    for _ in range(4):
        demo.submit(rng, backstop)


def _make_trouble(backstop: Backstop, upstream: StandIn) -> None:
    upstream.change(lost=1)
    rng, now = random.Random(3), utcnow()
    for _ in range(5):
        demo.submit(rng, backstop)
    upstream.change(account_error="used_up")
    factories.record(factories.failure_body("forged", "bad_request", "no"), confirm=True)
    Task.update(lookup_status="succeeded", next_lookup_at=None).where(Task.id == "forged").execute()
    factories.register("given-up", now=now - timedelta(hours=30), ref="order-1")
    Task.update(status="expired", gave_up_at=now, next_lookup_at=None).where(Task.id == "given-up").execute()
    wait_until(lambda: current_pause(utcnow()), seconds=30)


def _busy_pages() -> dict[str, str]:
    """Return the addresses of all pages, by their names."""
    newest = Task.select().order_by(Task.created_at.desc())
    succeeded = newest.where(Task.status == "succeeded", Task.callback_status == "succeeded")
    missed = newest.where(Task.settled_by == "lookup", Task.callback_status.is_null())
    disputed = newest.where(Task.callback_status != Task.lookup_status, Task.lookup_status.is_null(False))
    tasks = {
        "task": succeeded.where(Task.type == "imagine"),
        "task-video": newest.where(Task.type == "videos", Task.status == "succeeded"),
        "task-songs": newest.where(Task.type == SONGS, Task.status == "succeeded"),
        "task-described": newest.where(Task.type == "describe", Task.status == "succeeded"),
        "task-recovered": missed,
        "task-failed": newest.where(Task.status == "failed"),
        "task-disputed": disputed.where(Task.callback_status.in_(("failed", "succeeded"))),
    }
    runs = ReconcileRun.select().join(Lookup).order_by(ReconcileRun.settled.desc())
    return {
        "overview": "/",
        "settings": "/settings",
        "overview-week": "/?span=7d",
        "tasks": "/tasks",
        "tasks-filtered": "/tasks?missed=true&type=imagine",
        "tasks-none": "/tasks?q=nowhere",
        **{name: f"/tasks/{query.first().id}" for name, query in tasks.items() if query.exists()},
        "delivery": f"/deliveries/{Delivery.select().where(Delivery.verdict == 'succeeded').first().id}",
        "delivery-unreadable": f"/deliveries/{Delivery.select().where(Delivery.task.is_null()).first().id}",
        "runs": "/runs",
        "run": f"/runs/{runs.first().id}",
        "error": "/nowhere",
    }


def _send_picture(route: Route) -> None:
    route.fulfill(body=png(route.request.url), content_type="image/png")


def _take(browser: Browser, backstop: Backstop, state: str, pages: dict[str, str]) -> None:
    for theme in ("light", "dark"):
        for device, viewport in VIEWPORTS.items():
            context = browser.new_context(
                base_url=backstop.url, viewport=viewport, color_scheme=theme, locale="en-GB"
            )
            context.route(f"{PICTURES}/**", _send_picture)
            page = context.new_page()
            page.goto("/sign-in")
            if state == "empty":
                page.screenshot(path=WHERE / f"sign-in-{theme}-{device}.png")
            page.get_by_label("API key").fill(backstop.environ["API_KEY"])
            page.get_by_role("button", name="Sign in").click()
            for name, address in pages.items():
                page.goto(address)
                for picture in page.locator("img[loading=lazy]").all():
                    picture.scroll_into_view_if_needed()
                page.evaluate("scrollTo(0, 0)")
                page.wait_for_load_state("networkidle")
                page.screenshot(path=WHERE / f"{state}-{name}-{theme}-{device}.png", full_page=True)
            context.close()
    print(f"{state}: {len(pages)} pages")


if __name__ == "__main__":
    sys.exit(main())
