"""The results of a task's page in a real browser: players, pictures side by side, lyrics."""

import io
import os
import wave
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from receiver.clock import utcnow
from tests import factories
from tests.browser.conftest import PICTURES
from tests.browser.test_pages import complaints, cut_off
from tests.chromium import DESKTOP, PHONE
from tests.processes import wait_until

LYRIC = "[Verse]\nSnow is falling soft and white\n" * 8
REFRESH = "htmx.ajax('GET', location.pathname, {target: '#content', select: '#content', swap: 'outerMorph'})"


def silence(seconds: int = 60) -> bytes:
    """Return a sound file that Chromium can play."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(8000)
        sound.writeframes(b"\x80" * 8000 * seconds)
    return file.getvalue()


def song(number: int) -> dict[str, object]:
    names = {"audio_url": "wav", "image_url": "png", "video_url": "mp4"}
    links = {name: f"{PICTURES}/song-{number}.{ending}" for name, ending in names.items()}
    return {"id": f"song-{number}", "title": "Holiday wishes from a very small town", "lyric": LYRIC} | links


RESULTS: dict[str, dict[str, object]] = {
    "songs": {"data": [song(1), song(2)]},
    "pictures": {
        "image_urls": [f"{PICTURES}/p{n}.png" for n in range(4)],
        "raw_image_url": f"{PICTURES}/r.png",
    },
    "videos": {"image_url": f"{PICTURES}/v.png", "video_urls": [f"{PICTURES}/v{n}.mp4" for n in range(4)]},
    "sound": {"audio_url": f"{PICTURES}/tts.wav"},
    "scene": {"data": {"model_glb_url": f"{PICTURES}/scene.glb", "scene_url": f"{PICTURES}/scene.json"}},
    "words": {"title": "Example", "html": "<!doctype html>" + "<p>long</p>" * 200, "text": "Example"},
}


@pytest.fixture
def results(backstop):
    """A ledger with a task of each kind of result, all confirmed, of two services."""
    now = utcnow()
    for task_id in RESULTS:
        service = "suno" if task_id == "songs" else "midjourney"
        factories.register(task_id, now=now - timedelta(minutes=5), grace=timedelta(0), service=service)
    items = [
        factories.item(task_id, {"task_id": task_id, "success": True} | response, finished_at=1720364637.4)
        for task_id, response in RESULTS.items()
    ]
    factories.look_up(items, now)


@pytest.fixture
def open_results(open_browser, results):
    """Opens a browser that can play the sounds of `RESULTS`."""

    def open_it(**options: object) -> Page:
        page = open_browser(**options)
        page.context.route(f"{PICTURES}/*.wav", _send_sound)
        return page

    return open_it


def _send_sound(route: Route) -> None:
    route.fulfill(body=silence(), content_type="audio/wav")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_results_of_every_kind_fit_and_are_accessible(open_results, viewport, theme):
    page = open_results(viewport=viewport, color_scheme=theme)
    for name in RESULTS:
        page.goto(f"/tasks/{name}")
        for folded in page.locator(".result summary").all():
            folded.click()
        assert (complaints(page), cut_off(page)) == ([], []), name
        if where := os.environ.get("SCREENSHOTS"):
            page.wait_for_load_state("networkidle")
            device = "phone" if viewport == PHONE else "desktop"
            page.screenshot(path=Path(where) / f"{name}-{theme}-{device}.png", full_page=True)


def test_a_song_goes_on_playing_while_the_page_refreshes_itself(open_results):
    page = open_results()
    page.goto("/tasks/songs")
    expect(page.locator(".result video")).to_have_count(2)
    players = page.locator(".result audio")
    expect(players).to_have_count(2)
    players.nth(1).evaluate("player => player.play()")
    moment = "player => player.currentTime"
    wait_until(lambda: players.nth(1).evaluate(moment) > 0.2)
    page.locator(".result summary").nth(1).click()
    page.evaluate(REFRESH)
    page.wait_for_load_state("networkidle")
    before = players.nth(1).evaluate(moment)
    assert before > 0.2
    wait_until(lambda: players.nth(1).evaluate(moment) > before)
    assert not players.nth(1).evaluate("player => player.paused")
    expect(page.locator(".result .verse").nth(1)).to_be_visible()  # the lyric is still open
    expect(page.locator(".result .verse").nth(0)).to_be_hidden()


def test_a_player_whose_link_has_expired_says_so_also_after_a_refresh(open_results, open_browser):
    page = open_results()
    page.context.route(f"{PICTURES}/*.wav", lambda route: route.fulfill(status=403))
    page.goto("/tasks/sound")
    page.locator(".result audio").evaluate("player => { player.play().catch(() => {}) }")
    gone = page.get_by_text("It could not be played; upstream's links expire.")
    expect(gone).to_be_visible()
    page.evaluate(REFRESH)
    page.wait_for_load_state("networkidle")
    expect(gone).to_be_visible()
    expect(page.locator(".result audio")).to_be_hidden()
    assert [text for text in open_browser.wrong if "403" not in text] == []
    open_browser.wrong.clear()  # the browser tells of what it could not load


def test_pictures_stand_side_by_side_and_the_full_size_one_is_a_link(open_results):
    page = open_results()
    page.goto("/tasks/pictures")
    images = page.locator(".result img")
    expect(images).to_have_count(4)
    wait_until(lambda: all(each.evaluate("image => image.naturalWidth > 0") for each in images.all()))
    tops = [round(each.bounding_box()["y"]) for each in images.all()]
    assert tops[0] == tops[1]
    expect(page.get_by_role("link", name="full-size image")).to_have_attribute("href", f"{PICTURES}/r.png")


def test_the_list_can_be_filtered_by_service(open_results):
    page = open_results(viewport=PHONE)
    page.goto("/tasks")
    page.locator(".folded summary").click()
    page.get_by_label("Service").select_option("suno")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**service=suno**")
    expect(page.locator("a.name")).to_have_count(1)
    expect(page.locator(".ids").first).to_contain_text("suno")
    expect(page.get_by_label("Service")).to_have_value("suno")
    assert cut_off(page) == []
