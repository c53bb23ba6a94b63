"""What a visitor does with the pages, with and without scripts, on desktop and phone."""

import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from receiver.clock import utcnow
from receiver.ledger import resending, store
from receiver.ledger.models import Attempt, Delivery, Endpoint, Forward, Task
from receiver.ledger.reading.forwards import ForwardFilter
from tests import factories
from tests.browser.conftest import PICTURES
from tests.chromium import DESKTOP, PHONE
from tests.html import SCRIPT, run_now
from tests.processes import API_KEY, wait_until

SOON = 60_000  # ms, for what a refresh brings


def finished(task_id: str, **fields: object) -> dict[str, object]:
    """Return the Tasks API's object of a task whose picture can be loaded."""
    picture = {"image_url": f"{PICTURES}/{task_id}.png"}
    return factories.finished_item(task_id, **fields) | {
        "response": {"task_id": task_id, "success": True, "progress": 100} | picture
    }


@pytest.fixture
def busy(stand_in, backstop):
    """A ledger with tasks of all kinds, and pictures that can be loaded."""
    now = utcnow()
    factories.register(
        "lost", now=now - timedelta(minutes=5), grace=timedelta(0), ref="order-7", type="imagine"
    )
    factories.look_up([finished("lost", request={"prompt": "a lighthouse at dusk"})], now=now)
    factories.record(factories.body("disputed", image_url=f"{PICTURES}/d.png"), confirm=True)
    factories.look_up([factories.failed_item("disputed")])
    factories.record(factories.body("acknowledged"), now=now - timedelta(hours=1), confirm=True)
    factories.look_up([factories.failed_item("acknowledged")])
    store.acknowledge(["acknowledged"], now)
    for answer in (finished("changed"), factories.failed_item("changed")):
        factories.register("changed", now=now - timedelta(hours=2), grace=timedelta(0))
        store.ask_now("changed", now)
        factories.look_up([answer])
    for n in range(45):
        moment = now - timedelta(minutes=n)
        fields = {"image_url": f"{PICTURES}/{n}.png"}
        factories.record(factories.body(f"task-{n:02}", **fields), now=moment, ref=f"order-{n}")
    factories.record(factories.body("video", image_url=f"{PICTURES}/v.png", video_url=f"{PICTURES}/v.mp4"))
    factories.record(factories.body("words", image_url=None, descriptions=["a cat", "the cat"]))
    factories.register("waiting", type="imagine", ref="order-99")
    factories.record(factories.failure_body("broken", "bad_request", "The prompt is not allowed."))
    factories.record(b'{"oops', ref="order-9", remote_addr="203.0.113.7")
    run_now(due=3, asked=3, settled=2, absent=1, calls=1)
    _tell(now)


def _tell(now: datetime) -> None:
    """Make endpoints in all states, and what they are told."""
    app = factories.create_endpoint(f"https://app.example/{'long/' * 12}hook", succeeded_at=now)
    states: dict[str, dict[str, object]] = {
        "failing": {"failing_since": now, "failure": "HTTP 503"},
        "held": {"held_at": now, "held_because": "failing", "probe_at": now},
        "paused": {"held_at": now, "held_because": "person"},
        "retired": {"retired_at": now},
        "server": {"is_app": False, "succeeded_at": now},
    }
    for name, fields in states.items():
        endpoint = factories.create_endpoint(f"https://{name}.example/hook", **fields)
        factories.create_forward(endpoint=endpoint, task_id="lost", status="delivered")
    for status in ("delivered", "failed", "pending"):
        told = factories.create_forward(endpoint=app, task_id="lost", status=status, cause="HTTP 500")
        headers = json.dumps({"webhook-id": told.message_id, "webhook-signature": f"v1,{'K5oZfzN9' * 6}="})
        sent = {"forward": told, "began_at": now, "took": 0.2, "url": app.url, "headers": headers}
        Attempt.create(**sent, kind="refused", status=500, answer=f"<h1>{'oops' * 100}</h1>".encode())
        Attempt.create(**sent, kind="timeout", answer=b"", error="no answer in time")
    resending.order(ForwardFilter(status="failed"), 1, now)


def every_page() -> list[str]:
    """Return the address of every page of the busy ledger."""
    tasks = ("lost", "disputed", "acknowledged", "changed", "task-01", "video", "words", "waiting", "broken")
    lists = (
        "/tasks",
        "/tasks?status=pending&q=order-99",
        "/tasks?q=nothing",
        "/tasks?disputed=true",
        "/deliveries",
        "/deliveries?verdict=unreadable&task=nobody",
        "/forwards",
        "/forwards?status=failed&endpoint=1",
        "/forwards?task=nobody",
        "/forwards/resend?status=failed",
        "/settings",
        "/runs",
        "/runs/1",
        "/runs/3",
    )
    deliveries = [f"/deliveries/{row.id}" for row in Delivery.select().order_by(Delivery.id.desc()).limit(2)]
    forwards = [
        f"/forwards/{row.id}" for row in Forward.select(Forward.id).order_by(Forward.id.desc()).limit(3)
    ]
    return ["/", "/?span=7d", *lists, *(f"/tasks/{task}" for task in tasks), *deliveries, *forwards]


def shown_tasks(page: Page) -> list[str]:
    return [link.get_attribute("href").removeprefix("/tasks/") for link in page.locator("a.name").all()]


def _without_thumbs(route: Route) -> None:
    """Send a page without its pictures of results."""
    page = route.fetch()
    route.fulfill(response=page, body=re.sub(r'<img src="https[^>]*>', "", page.text()))


def complaints(page: Page) -> list[str]:
    """Return what axe-core finds wrong with a page by the rules of WCAG 2.2 AA and good practice."""
    # Only what is wrong is described in full. To tell of each node that is right takes a fifth of the time.
    violations = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [f"{each['id']}: {node['html'][:200]}" for each in violations for node in each["nodes"]]


def cut_off(page: Page) -> list[str]:
    """Return what makes a page wider than its window."""
    return page.evaluate(
        "document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll('main *')]"
        ".filter(each => each.getBoundingClientRect().right > innerWidth && !each.closest('pre *'))"
        ".map(each => each.outerHTML.slice(0, 200))"
    )


# The element that has the focus, or null.
_FOCUSED = """(() => {
    const focused = document.activeElement;
    const style = getComputedStyle(focused);
    const isOutlined = focused.type === "datetime-local"  // a date marks its parts
        || (style.outlineStyle !== "none" && style.outlineWidth !== "0px");
    return focused === document.body ? null : {isOutlined, html: focused.outerHTML};
})()"""


class TestSigningIn:
    def test_by_keyboard_and_out_again(self, open_browser, backstop):
        page = open_browser(signed_in=False)
        page.goto("/sign-in?next=/runs")
        expect(page.get_by_label("API key")).to_be_focused()
        page.keyboard.type(API_KEY)
        page.keyboard.press("Enter")
        page.wait_for_url("/runs")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("/sign-in")

    def test_a_wrong_key_is_told_beside_the_field(self, open_browser, backstop):
        page = open_browser(signed_in=False)
        page.goto("/sign-in")
        page.get_by_label("API key").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("That is not the API key.")
        assert complaints(page) == []
        assert [text for text in open_browser.wrong if "401" not in text] == []
        open_browser.wrong.clear()  # the browser tells of the 401 itself


@pytest.mark.usefixtures("busy")
class TestEveryPage:
    # Each width once and each theme once: what axe checks depends on one of them, not on both.
    @pytest.mark.parametrize(
        ("viewport", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"]
    )
    def test_axe_finds_nothing_and_nothing_is_cut_off(self, open_browser, viewport, scheme):
        page = open_browser(viewport=viewport, color_scheme=scheme)
        for path in every_page():
            page.goto(path)
            page.locator("details").evaluate_all("all => all.forEach(each => { each.open = true; })")
            assert complaints(page) == [], path
            assert cut_off(page) == [], path
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, re.findall(r"\d+", ground))) < 64) == (scheme == "dark")

    def test_each_can_be_walked_through_by_keyboard(self, open_browser):
        page = open_browser()
        for path in ("/", "/tasks", "/tasks/lost", "/runs", "/forwards", "/forwards/7"):
            page.goto(path)
            page.keyboard.press("Tab")
            expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
            reached = 0
            while (focused := page.evaluate(_FOCUSED)) and reached < 200:
                assert focused["isOutlined"], focused["html"]
                page.keyboard.press("Tab")
                reached += 1
            everything = page.locator(
                "a[href], button, input:not([type=hidden]), select, summary, [tabindex='0']"
            )
            visible = everything.filter(visible=True).count()
            assert reached >= visible - page.locator("input[type=datetime-local]").count(), path


@pytest.mark.usefixtures("busy")
class TestTasks:
    def test_filtering_and_paging_stand_in_the_address(self, open_browser):
        page = open_browser()
        page.get_by_role("link", name="Tasks", exact=True).click()
        page.get_by_label("Settled by").select_option("callback")
        page.get_by_label("Status").select_option("succeeded")
        page.get_by_role("button", name="Show", exact=True).click()
        page.wait_for_url(re.compile(r"status=succeeded&settled_by=callback"))
        first = shown_tasks(page)
        page.get_by_role("link", name="Older").click()
        page.wait_for_url(re.compile(r"before="))
        expect(page.get_by_label("Status")).to_have_value("succeeded")
        assert not set(first) & set(shown_tasks(page))
        page.reload()
        assert not set(first) & set(shown_tasks(page))
        page.go_back()
        assert shown_tasks(page) == first

    def test_without_scripts_a_picture_that_is_gone_leaves_the_mark_alone(self, open_browser):
        factories.register("gone", now=utcnow() - timedelta(minutes=5), grace=timedelta(0))
        factories.look_up([finished("gone")])
        page = open_browser(java_script_enabled=False)
        page.goto("/tasks")
        thumb = page.locator("tr", has_text="gone").locator(".thumb")
        with page.expect_event("requestfailed", lambda request: request.url.endswith("gone.png")):
            page.reload()
        shown = thumb.screenshot()
        # What is drawn is what is drawn without the picture.
        page.route("**/tasks", lambda route: _without_thumbs(route))
        page.goto("/tasks")
        wait_until(lambda: thumb.screenshot() == shown)
        open_browser.wrong.clear()

    @pytest.mark.parametrize("path", ["/tasks", "/deliveries", "/forwards"])
    @pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
    def test_the_fields_of_a_filter_line_up(self, open_browser, viewport, path):
        page = open_browser(viewport=viewport)
        page.goto(path)
        page.locator(".folded").evaluate("each => { each.open = true; }")
        fields = page.locator(".filter input, .filter select, .filter button").all()
        boxes = [field.bounding_box() for field in fields]
        assert {round(box["height"]) for box in boxes} == {40}
        lefts = {round(box["x"]) for box in boxes}
        assert len(lefts) <= (2 if viewport == PHONE else 5)
        labels = [label.bounding_box()["y"] for label in page.locator(".filter label").all()]
        assert len({round(y) for y in labels}) <= len({round(box["y"]) for box in boxes})

    @pytest.mark.parametrize("path", ["/tasks", "/deliveries", "/forwards"])
    def test_a_phone_folds_most_fields_of_a_filter_and_a_desktop_none(self, open_browser, path):
        desktop = open_browser()
        desktop.goto(path)
        expect(desktop.get_by_label("until (UTC)")).to_be_visible()
        expect(desktop.locator(".folded summary")).to_be_hidden()
        phone = open_browser(viewport=PHONE)
        phone.goto(f"{path}?since=2026-01-31T12:00")
        assert phone.locator(".filter").bounding_box()["height"] < PHONE["height"] / 3
        expect(phone.get_by_label("until (UTC)")).to_be_hidden()
        expect(phone.locator(".folded summary")).to_have_text("More filters 1 set")
        phone.locator(".folded summary").click()
        phone.get_by_label("until (UTC)").fill("2026-02-01T12:00")
        phone.get_by_role("button", name="Show", exact=True).click()
        phone.wait_for_url(re.compile(r"until=2026-02-01"))
        assert "since=2026-01-31" in phone.url

    def test_it_tells_how_many_match_where_that_is_cheap(self, open_browser):
        page = open_browser()
        page.goto("/tasks?status=failed")
        expect(page.locator(".matching")).to_have_text("3 tasks match.")
        page.goto("/tasks?type=imagine")
        expect(page.locator(".matching")).to_have_count(0)

    def test_the_search_of_any_page_finds_a_task(self, open_browser):
        page = open_browser()
        page.get_by_label("Find a task").fill("dusk lighthouse")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(r"/tasks\?q="))
        assert shown_tasks(page) == ["lost"]

    def test_a_thumbnail_is_shown_and_one_that_is_gone_leaves_its_place(self, open_browser):
        factories.register("gone", now=utcnow() - timedelta(minutes=5), grace=timedelta(0))
        factories.look_up([finished("gone")])
        page = open_browser()
        page.goto("/tasks")
        loaded = "image => image.complete && image.naturalWidth > 0"
        images = {row: page.locator("tr", has_text=row).locator("img") for row in ("order-7", "gone")}
        images["order-7"].scroll_into_view_if_needed()
        wait_until(lambda: images["order-7"].evaluate(loaded))
        assert images["gone"].locator("..").bounding_box()["width"] == 40
        expect(images["gone"]).to_be_hidden()
        mark = page.locator("tr", has_text="gone").locator(".thumb")
        assert "no-picture.svg" in mark.evaluate("mark => getComputedStyle(mark).backgroundImage")
        assert "could not be loaded" in mark.get_attribute("title")
        page.evaluate(
            "htmx.ajax('GET', '/tasks', {target: '#content', select: '#content', swap: 'outerMorph'})"
        )
        page.wait_for_load_state("networkidle")
        expect(images["gone"]).to_be_hidden()  # a refresh does not bring it back
        page.goto("/tasks/gone")
        expect(page.get_by_text("The picture could not be loaded; upstream's links expire.")).to_be_visible()
        assert [text for text in open_browser.wrong if "ERR_" not in text] == []
        open_browser.wrong.clear()  # the browser tells of what it could not load

    @pytest.mark.parametrize("path", ["/tasks", "/tasks/gone"])
    def test_a_picture_that_fails_before_the_script_runs_is_told_too(self, open_browser, path):
        factories.register("gone", now=utcnow() - timedelta(minutes=5), grace=timedelta(0))
        factories.look_up([finished("gone")])
        page, held = open_browser(), []
        page.route("**/static/backstop.js", lambda route: held.append(route))
        with page.expect_event("requestfailed", lambda request: request.url.endswith("gone.png")):
            page.goto(path, wait_until="commit")
        held[0].continue_()
        expect(page.locator("img[src$='gone.png']")).to_be_hidden()
        open_browser.wrong.clear()

    def test_a_search_that_takes_long_goes_on_by_itself(self, open_browser):
        old = utcnow() - timedelta(days=3)
        factories.register("found", type="describe", now=old)
        for hundred in range(25):
            ids = [f"many-{hundred:02}-{n:02}" for n in range(100)]
            factories.register(*ids, now=old + timedelta(minutes=hundred + 1), type="imagine")
        page = open_browser()
        page.goto("/tasks?type=describe")
        expect(page.get_by_role("link", name="found")).to_be_visible()


class TestTask:
    @pytest.mark.usefixtures("busy")
    @pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
    def test_the_copy_buttons_line_up(self, open_browser, viewport):
        page = open_browser(viewport=viewport)
        page.goto("/tasks/lost")
        boxes = [button.bounding_box() for button in page.locator(".facts .copy").all()]
        assert len(boxes) >= 3
        assert (
            len({(round(box["x"], 1), round(box["width"], 1), round(box["height"], 1)) for box in boxes}) == 1
        )

    @pytest.mark.usefixtures("busy")
    def test_a_delivery_opens_in_its_place(self, open_browser):
        page = open_browser()
        page.goto("/tasks/task-01")
        title = page.title()
        page.locator("summary", has_text="Body and headers").click()
        expect(page.locator(".verbatim")).to_contain_text('"task_id": "task-01"')
        expect(page).to_have_title(title)
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the bytes").click()
        assert b'"task_id": "task-01"' in Path(download.value.path()).read_bytes()
        page.get_by_role("button", name="Copy the body").click()  # it can be used like any other
        assert page.url.endswith("/tasks/task-01")

    def test_asking_now_settles_it_before_ones_eyes(self, open_browser, backstop, stand_in):
        factories.register("t1", grace=timedelta(hours=1))
        stand_in.add_record(finished("t1"))
        backstop.start_reconciler()
        page = open_browser()
        page.goto("/tasks/t1")
        expect(page.locator(".states")).to_contain_text("pending")
        page.get_by_role("button", name="Ask upstream now").click()
        page.wait_for_url("/tasks/t1")
        page.evaluate("window.stayed = true")
        expect(page.locator(".states")).to_contain_text("succeeded", timeout=SOON)
        expect(page.locator(".timeline")).to_contain_text("settled as succeeded by a look-up")
        assert page.evaluate("window.stayed")

    def test_its_id_can_be_copied(self, open_browser, backstop):
        factories.record(factories.body("an id/with <odd> parts", image_url=None, descriptions=["a"]))
        page = open_browser(permissions=["clipboard-read", "clipboard-write"])
        page.goto("/tasks/an%20id/with%20%3Codd%3E%20parts")
        button = page.locator("[data-copy=id]")
        button.click()
        expect(button).to_have_text("Copied")
        button.click()
        expect(button).to_have_text("Copy the id")  # after a while
        assert page.evaluate("navigator.clipboard.readText()") == "an id/with <odd> parts"


@pytest.mark.usefixtures("busy")
class TestForwards:
    def test_an_endpoint_is_paused_and_resumed_by_its_buttons(self, open_browser):
        page = open_browser()
        page.goto("/forwards")
        row = page.locator("#endpoint-1")
        row.get_by_role("button", name="Pause https://app.example").click()
        expect(row).to_contain_text("A person paused it")
        row.get_by_role("button", name="Resume https://app.example").click()
        expect(row).to_contain_text("Its last success was")
        assert Endpoint.get_by_id(1).held_at is None

    def test_all_that_failed_of_one_cause_is_sent_again_and_stopped(self, open_browser):
        page = open_browser()
        page.goto("/forwards")
        page.get_by_role("button", name="Stop").click()
        page.get_by_role("link", name="Send again… what failed of HTTP 500").click()
        page.get_by_label("Forwards a second").fill("0.5")
        page.get_by_role("button", name="Send 1 forward again").click()
        page.wait_for_url("/forwards")
        notice = page.locator("#resending-2")
        expect(notice).to_contain_text("0 of 1 forward (status failed, cause “HTTP 500”), 0.5 a second")
        resending.advance(utcnow())
        expect(notice).to_contain_text("1 of 1 forward", timeout=SOON)
        assert Forward.select().where(Forward.status == "resent").count() == 1

    def test_the_last_attempt_can_be_copied_as_a_command(self, open_browser):
        page = open_browser(permissions=["clipboard-read", "clipboard-write"])
        page.goto("/forwards/7")
        page.get_by_role("button", name="Copy the command").click()
        expect(page.locator("#told")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()").startswith("curl https://app.example/long/")


class TestOverview:
    def test_an_empty_ledger_offers_the_callback_url_and_what_proves_that_it_works(
        self, open_browser, backstop
    ):
        page = open_browser(permissions=["clipboard-read", "clipboard-write"])
        assert complaints(page) == []
        assert backstop.environ["CALLBACK_TOKEN"] not in page.content()
        page.locator(".callback-url").get_by_role("button", name="Copy").click()
        expect(page.locator("#told")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == backstop.callback_url
        page.get_by_role("button", name="Copy the second command").click()
        assert "my-first-task" in page.evaluate("navigator.clipboard.readText()")

    def test_without_a_clipboard_it_can_be_copied_all_the_same(self, open_browser, backstop):
        page = open_browser()
        page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
        page.evaluate(
            "document.addEventListener('copy', () => { window.copied = document.activeElement.value; }, true)"
        )
        page.locator(".callback-url").get_by_role("button", name="Copy").click()
        expect(page.locator("#told")).to_have_text("Copied")
        assert page.evaluate("window.copied") == backstop.callback_url

    @pytest.mark.usefixtures("busy")
    def test_it_refreshes_itself_where_one_is(self, open_browser):
        page = open_browser()
        page.get_by_text("The numbers").click()
        page.locator("#tasks").scroll_into_view_if_needed()
        page.evaluate("window.stayed = true")
        before = page.evaluate("scrollY")
        assert before > 0
        factories.record(factories.body("just-came", image_url=None, descriptions=["a"]), ref="order-1000")
        expect(page.get_by_role("link", name="order-1000")).to_be_visible(timeout=SOON)
        assert page.evaluate("scrollY") == before
        assert page.locator("details.numbers").get_attribute("open") is not None
        assert page.evaluate("window.stayed")

    def test_refreshing_can_be_paused(self, open_browser, backstop):
        factories.record(factories.body("t1", image_url=None, descriptions=["a"]))
        page = open_browser()
        page.get_by_role("button", name="Pause").click()
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        factories.record(factories.body("t2", image_url=None, descriptions=["a"]), ref="order-1000")
        page.wait_for_timeout(11_000)  # nothing is to happen in the time between two refreshes
        assert asked == []
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_role("link", name="order-1000")).to_be_visible(timeout=SOON)

    @pytest.mark.usefixtures("busy")
    def test_the_plot_changes_its_span(self, open_browser):
        page = open_browser()
        expect(page.get_by_role("heading", name="Tasks of the last 24 h")).to_be_visible()
        page.get_by_role("link", name="last 7 days", exact=True).click()
        expect(page.get_by_role("heading", name="Tasks of the last 7 days")).to_be_visible()
        assert page.url.endswith("/?span=7d")


def test_times_are_the_visitors_and_utc_on_hover(open_browser, backstop):
    factories.record(factories.body("t1", image_url=None, descriptions=["a"]))
    Task.update(created_at="2026-01-31 12:00:00.000000").execute()
    page = open_browser(timezone_id="Europe/Berlin")
    page.goto("/tasks/t1")
    heard_of = page.locator("dt", has_text="First heard of").locator("..").locator("time")
    expect(heard_of).to_have_text("31 Jan 2026, 13:00:00")
    expect(heard_of).to_have_attribute("title", "2026-01-31 12:00:00 UTC")
    expect(page.locator(".as-of")).to_contain_text("times are Europe/Berlin")


@pytest.mark.usefixtures("busy")
def test_everything_works_without_scripts(open_browser, backstop):
    page = open_browser(java_script_enabled=False)
    page.get_by_role("button", name="Show it in full").click()
    assert page.locator("body").inner_text().strip() == backstop.callback_url
    page.goto("/tasks?status=pending")
    assert shown_tasks(page) == ["waiting"]
    page.get_by_role("link", name="order-99").click()
    page.get_by_role("button", name="Ask upstream now").click()
    expect(page.get_by_text("Due now: the next run asks.")).to_be_visible()
    page.goto("/tasks/task-01")
    page.locator("summary", has_text="Body and headers").click()
    page.get_by_role("link", name="Show the body and headers").click()
    expect(page.locator(".verbatim")).to_contain_text('"task_id": "task-01"')
    expect(page.get_by_role("button", name="Copy the body")).to_be_hidden()
    page.goto("/")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()


def test_hostile_texts_run_nowhere(open_browser, backstop):
    attack = f'"><img src=x onerror="alert(1)"><a href="javascript:alert(1)">{SCRIPT}'
    fields = {"image_url": f"https://x/{attack}", "descriptions": [attack]}
    headers = [("X", attack)]
    factories.record(
        factories.body("t1", **fields), confirm=True, ref=attack, remote_addr=attack, headers=headers
    )
    factories.look_up([factories.item("t1", type=attack, request={"prompt": attack})], error=attack)
    run_now(calls=1, errors=1, error=attack)
    page = open_browser()
    for path in ("/", "/tasks", "/tasks/t1", "/runs", "/runs/1", "/deliveries/1"):
        page.goto(path)
        page.wait_for_load_state("networkidle")
        assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize(
    ("path", "status"), [("/nowhere", 404), ("/tasks?status=odd", 400), ("/tasks/none", 404)]
)
def test_errors_are_pages_of_the_same_style(open_browser, backstop, path, status):
    page = open_browser()
    assert page.goto(path).status == status
    expect(page.get_by_role("heading", name="What to do")).to_be_visible()
    assert complaints(page) == []
    open_browser.wrong.clear()  # the browser tells of the status itself


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("span", ["24h", "7d"])
def test_the_numbers_of_the_plot_fit_on_a_phone(open_browser, span):
    page = open_browser(viewport=PHONE)
    page.goto(f"/?span={span}")
    page.locator("summary", has_text="The numbers").click()
    scrolled = page.locator(".scrolled")
    assert scrolled.locator("tbody tr").count() >= 1
    assert scrolled.evaluate("box => box.scrollWidth <= box.clientWidth")
    rows = scrolled.locator("tbody th").all()
    assert all(row.bounding_box()["height"] < 60 for row in rows)


def test_the_first_commands_keep_their_lines_on_a_phone(open_browser):
    page = open_browser(viewport=PHONE)
    page.goto("/")
    command = page.locator("#step-1")
    assert command.evaluate("one => one.textContent.split('\\n').length") == 4
    lines = "one => Math.round(one.parentElement.clientHeight / parseFloat(getComputedStyle(one).lineHeight))"
    assert command.evaluate(lines) < 6
    assert complaints(page) == []


def test_a_very_long_prompt_scrolls_by_itself(open_browser):
    factories.register("t1", grace=timedelta(0))
    factories.look_up([finished("t1", request={"prompt": "a lighthouse at dusk, " * 500})])
    page = open_browser(viewport=PHONE)
    page.goto("/tasks/t1")
    assert page.locator("#prompt").bounding_box()["height"] < PHONE["height"] / 2
    assert complaints(page) == []
