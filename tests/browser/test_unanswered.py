"""What an open page says when it can no longer be refreshed, and what it becomes when it can again."""

import base64
import os
import signal
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from receiver.ledger.models import database
from tests import factories
from tests.browser.test_pages import SOON, complaints, cut_off
from tests.chromium import PHONE
from tests.html import run_now
from tests.processes import API_KEY, wait_until, worker_ids

# Programs, with a Bearer token, get errors as JSON.
AS_A_PERSON = {"Authorization": f"Basic {base64.b64encode(f':{API_KEY}'.encode()).decode()}"}

WELL, NO_ANSWER = "All is well · Backstop", "No answer · Backstop"
GREEN, RED = "rgb(230, 244, 234)", "rgb(253, 234, 234)"  # the light theme's backgrounds


@pytest.fixture
def backstop(own_backstop):
    return own_backstop


@pytest.fixture
def well(backstop):
    """A ledger of which the overview says that all is well, however long the test takes."""
    factories.record(factories.failure_body("t1"))
    run_now(ago=0)


def in_time(page: Page, condition: Callable[[], object]) -> None:
    """Put the page's clock forward, a second at a time, until a condition holds."""

    def is_so() -> object:
        page.clock.run_for(1000)
        return condition()

    wait_until(is_so, seconds=60)


def tells(page: Page, text: str, title: str) -> Callable[[], bool]:
    alert = page.get_by_role("alert")
    return lambda: alert.is_visible() and text in alert.inner_text() and page.title() == title


def is_well(page: Page, title: str) -> Callable[[], bool]:
    return lambda: not page.get_by_role("alert").is_visible() and page.title() == title


def open_pages(page: Page, *paths: str) -> list[Page]:
    """Open more pages in the same browser, with clocks that can be put forward."""
    page.context.clock.install()
    pages = [page, *(page.context.new_page() for _ in paths[1:])]
    for each, path in zip(pages, paths, strict=True):
        each.goto(path)
    return pages


def kill(backstop) -> None:
    backstop.kill_web(backstop.processes.pop())
    wait_until(lambda: not backstop._is_up())


def background(page: Page, selector: str) -> str:
    return page.locator(selector).evaluate("element => getComputedStyle(element).backgroundColor")


def is_loaded_anew(page: Page) -> bool:
    return not page.evaluate("window.stayed === true")


def forgive(open_browser, *words: str) -> None:
    """Clear what the browser tells of the failed requests; nothing else may have gone wrong."""
    expected = (*words, "htmx:error")
    assert [text for text in open_browser.wrong if not any(word in text for word in expected)] == []
    open_browser.wrong.clear()


@pytest.mark.usefixtures("well")
def test_every_page_that_refreshes_itself_tells_when_the_web_process_is_dead_and_when_it_is_back(
    open_browser, backstop
):
    pages = open_pages(open_browser(), "/", "/tasks", "/tasks/t1", "/runs")
    titles = [page.title() for page in pages]
    overview = pages[0]
    assert background(overview, "h1.summary") == GREEN
    kill(backstop)
    for page in pages:
        page.evaluate("window.stayed = true")
        in_time(page, tells(page, "No answer from Backstop since", NO_ANSWER))
        expect(page.get_by_role("alert")).to_contain_text("this page is from then")
        assert background(page, "#unanswered") == RED
        assert complaints(page) == []
    assert background(overview, "h1.summary") != GREEN
    backstop.start_web("--keep-alive", "1")
    for page, title in zip(pages, titles, strict=True):
        in_time(page, is_well(page, title))
        assert not is_loaded_anew(page)
    # While the other pages were waited for, this one asked again. By its fast clock an answer can be late once more.
    in_time(overview, lambda: background(overview, "h1.summary") == GREEN)
    forgive(open_browser, "ERR_")


@pytest.mark.usefixtures("well")
def test_a_web_process_that_hangs_gives_no_answer(open_browser, backstop):
    (page,) = open_pages(open_browser(), "/")
    (master,) = backstop.processes
    stopped = [master.pid, *worker_ids(master)]
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        in_time(page, tells(page, "No answer from Backstop since", NO_ANSWER))
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    wait_until(backstop._is_up)
    in_time(page, is_well(page, WELL))
    forgive(open_browser, "ERR_")


@pytest.mark.usefixtures("well")
def test_a_tab_that_nobody_looks_at_and_one_with_chosen_text_tell_too(open_browser, backstop):
    hidden, chosen = open_pages(open_browser(), "/", "/")
    hidden.evaluate("Object.defineProperty(document, 'hidden', {value: true})")
    chosen.evaluate("getSelection().selectAllChildren(document.querySelector('h1'))")
    kill(backstop)
    for page in (hidden, chosen):
        in_time(page, tells(page, "No answer from Backstop since", NO_ANSWER))
    backstop.start_web("--keep-alive", "1")
    in_time(chosen, is_well(chosen, WELL))
    assert chosen.evaluate("String(getSelection())").startswith("All is well")
    forgive(open_browser, "ERR_")


@pytest.mark.usefixtures("well")
def test_a_session_that_ended_is_told_with_the_way_to_sign_in_again(open_browser, backstop):
    (page,) = open_pages(open_browser(), "/tasks?status=failed")
    page.context.clear_cookies()
    in_time(page, tells(page, "You are signed out", "Signed out · Backstop"))
    page.get_by_role("link", name="Sign in again").click()
    expect(page.locator("input[name=next]")).to_have_value("/tasks?status=failed")
    forgive(open_browser, "401")


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_error_is_told_with_its_number_and_fits_on_a_phone(open_browser, backstop, scheme):
    (page,) = open_pages(open_browser(viewport=PHONE, color_scheme=scheme), "/")
    page.route("**/?span=24h", lambda route: route.fulfill(status=500, body="oops"))
    in_time(page, tells(page, "Backstop answers with error 500", "Error 500 · Backstop"))
    assert complaints(page) == []
    assert cut_off(page) == []
    forgive(open_browser, "500")


def test_a_page_on_a_day_without_its_database_says_what_to_do(open_browser, backstop):
    page = open_browser()
    (backstop.directory / "backstop.db").rename(backstop.directory / "moved.db")
    (backstop.directory / "backstop.db").mkdir()
    for process in backstop.processes:
        backstop.stop(process)
    backstop.start_web()
    assert page.goto("/").status == 503
    expect(
        page.get_by_text("Check that the database runs and can be reached, and that its disk has room.")
    ).to_be_visible()
    assert complaints(page) == []
    open_browser.wrong.clear()


class TestWithoutItsDatabase:
    @pytest.fixture
    def away(self, backstop):
        """Make the database one that cannot be opened; returns what brings it back."""
        for process in backstop.processes:
            backstop.stop(process)
        path, kept = backstop.directory / "backstop.db", backstop.directory / "kept.db"
        database.obj.close_all()
        path.rename(kept)
        path.mkdir()
        backstop.start_web("--keep-alive", "1")

        def bring_back():
            path.rmdir()
            kept.rename(path)

        return bring_back

    def test_the_page_says_that_callbacks_are_kept_and_becomes_what_was_asked_for(
        self, open_browser, backstop, well, away
    ):
        page = open_browser(signed_in=False, extra_http_headers=AS_A_PERSON)
        page.context.clock.install()
        assert page.goto("/tasks").status == 503
        expect(page.get_by_text("0 deliveries wait there now.")).to_be_visible()
        expect(page.get_by_text("migrate")).to_be_hidden()
        assert backstop.post_callback(factories.body("t2")).status == 202
        in_time(page, page.get_by_text("1 delivery waits there now.").is_visible)
        in_time(page, is_well(page, "Service Unavailable · Backstop"))
        assert complaints(page) == []
        away()
        in_time(page, page.get_by_role("link", name="t1").is_visible)
        expect(page).to_have_title("Tasks · Backstop")
        forgive(open_browser, "503")

    def test_without_scripts_it_becomes_what_was_asked_for_too(self, open_browser, backstop, well, away):
        page = open_browser(
            signed_in=False,
            java_script_enabled=False,
            extra_http_headers=AS_A_PERSON,
        )
        assert page.goto("/tasks").status == 503
        away()
        expect(page.get_by_role("link", name="t1")).to_be_visible(timeout=SOON)
        forgive(open_browser, "503")
