"""What a response holds, and which addresses may become links."""

import json

import pytest

from receiver.ledger.models import Task
from receiver.web import response_view
from tests.factories import sample


def task(response=None, **fields):
    return Task(id="t1", lookup_key=b"", callback_response=response and json.dumps(response), **fields)


def confirmed(response):
    return Task(id="t1", lookup_status="succeeded", lookup_response=json.dumps(response))


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)//https://x",
        "\tjavascript:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "//evil.example/x",
        "https:",
        "https:///path",
        "https://[broken",
        "https://x/\ud800",
        "https://x/a b",
        "/relative",
        "",
        None,
        7,
        {"https": "https:"},
    ],
)
def test_only_http_addresses_become_links(url):
    assert response_view.safe_url(url) is None
    assert response_view.image_of(task({"image_url": url})) is None


@pytest.mark.parametrize("url", ["https://x/1.png?a=1&b=2", "http://x", "HTTPS://x/ü.png"])
def test_http_addresses_are_links_as_they_are(url):
    assert response_view.safe_url(url) == url


def loaded(found):
    """Return what a page loads of a response's parts."""
    return [url for part in found for url in (*part.images, *part.videos, *part.sounds)]


def test_a_page_loads_by_itself_what_upstream_has_told_and_https_alone():
    response = {"image_url": "https://x/1.png", "video_urls": ["http://x/1.mp4", "https://x/2.mp4"]}
    (found,) = response_view.contents_of(confirmed(response | {"audio_url": "https://x/3.mp3"}))
    assert (found.poster, found.videos, found.sounds) == (
        "https://x/1.png",
        ("https://x/2.mp4",),
        ("https://x/3.mp3",),
    )
    plain = confirmed({"image_url": "http://x/1.png"})
    assert loaded(response_view.contents_of(plain)) == []
    assert response_view.thumbnail_of(plain) is None
    claimed = task(response, status="succeeded", callback_status="succeeded")
    assert response_view.thumbnail_of(claimed) is None
    (found,) = response_view.contents_of(claimed)
    assert (loaded([found]), found.poster, len(found.links)) == ([], None, 3)


def test_it_finds_links_and_texts():
    response = {
        "image_url": "https://x/1.png",
        "raw_image_url": "https://x/1.png",
        "video_urls": ["https://x/1.mp4", "javascript:1", {}, "https://x/2.mp4", "https:///nowhere"],
        "descriptions": ["a cat", 7, "see /callbacks/s3cret/1"],
        "title": "/callbacks/s3cret/1",
    }
    (found,) = response_view.contents_of(confirmed(response))
    assert [(link.name, link.url) for link in found.links] == [
        ("image", "https://x/1.png"),
        ("video 1", "https://x/1.mp4"),
        ("video 3", "https://x/2.mp4"),
    ]
    assert found.title == "/callbacks/***/1"
    assert found.texts == (
        response_view.Words("Descriptions", ("a cat", "see /callbacks/***/1"), is_long=False),
    )
    assert [link.url for link in response_view.links_of(confirmed(response))] == [
        *("https://x/1.png", "https://x/1.mp4", "https://x/2.mp4")
    ]


def test_a_part_without_a_safe_link_is_not_shown():
    assert response_view.contents_of(confirmed({"data": [{"url": "https:///nowhere"}]})) == ()


def test_a_long_text_is_folded_and_cut():
    response = {"lyric": "la " * 300, "text": "la\n" * 20, "content": "la", "html": "x" * 30_000}
    (found,) = response_view.contents_of(confirmed(response))
    assert {words.name: words.is_long for words in found.texts} == {
        "Lyric": True,
        "Text": True,
        "Content": False,
        "HTML": True,
    }
    assert len(found.texts[-1].entries[0]) == 20_001


def test_several_pictures_are_shown_but_the_full_size_one_is_a_link():
    small = [f"https://x/{n}.png" for n in range(4)]
    (found,) = response_view.contents_of(
        confirmed({"raw_image_url": "https://x/raw.png", "image_urls": small})
    )
    assert found.images == tuple(small)
    assert (
        response_view.image_of(confirmed({"raw_image_url": "https://x/raw.png", "image_urls": small}))
        == small[0]
    )
    (alone,) = response_view.contents_of(confirmed({"raw_image_url": "https://x/raw.png"}))
    assert alone.images == ("https://x/raw.png",)
    (many,) = response_view.contents_of(confirmed({"image_urls": [f"https://x/{n}.png" for n in range(50)]}))
    assert (len(many.images), len(many.links)) == (12, 50)


def test_it_prints_json_whole_up_to_a_limit():
    assert response_view.printed(None) is None
    assert response_view.printed('{"a":"\\u00e9"}') == '{\n  "a": "é"\n}'
    assert len(response_view.printed(json.dumps(["x" * 200_000]))) == 100_001


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (None, None),
        ('{"other":1}', None),
        ('{"code":"bad","message":null}', response_view.Failure("bad", "")),
        ('{"code":400,"message":{"a":1}}', response_view.Failure("400", "{'a': 1}")),
    ],
)
def test_it_tells_why_a_task_failed(error, failure):
    assert response_view.failure_of(task(callback_error=error)) == failure


STAND_IN = "http://127.0.0.1:9090"


@pytest.mark.parametrize(
    ("api_base_url", "origin"),
    [
        (STAND_IN, STAND_IN),
        ("http://localhost:9090/base", "http://localhost:9090"),
        ("https://api.acedata.cloud", None),
        ("https://127.0.0.1:9090", None),
        ("http://192.168.0.7:9090", None),
        ("http://127.0.0.1.evil.example", None),
    ],
)
def test_upstream_is_a_stand_in_where_it_is_plain_http_on_this_machine(api_base_url, origin):
    assert response_view.stand_in_of(api_base_url) == origin


def test_of_plain_http_a_page_loads_what_comes_from_the_stand_in_alone():
    response = {"image_url": f"{STAND_IN}/1.png", "video_urls": [f"{STAND_IN}/1.mp4"]}
    (found,) = response_view.contents_of(confirmed(response), STAND_IN)
    assert (found.poster, found.videos) == (f"{STAND_IN}/1.png", (f"{STAND_IN}/1.mp4",))
    assert response_view.thumbnail_of(confirmed(response), STAND_IN) == f"{STAND_IN}/1.png"
    assert response_view.thumbnail_of(confirmed(response)) is None
    for other in ("http://127.0.0.1:9091/1.png", "http://x/1.png", "http://u@127.0.0.1:9090/1.png"):
        assert response_view.loadable(other, STAND_IN) is None
    claimed = task(response, status="succeeded", callback_status="succeeded")
    assert response_view.thumbnail_of(claimed, STAND_IN) is None


def test_each_of_several_songs_has_its_own_part():
    first, second = response_view.contents_of(confirmed(sample("services/suno_callback_success.json")))
    assert first.title == second.title == "Holiday Wishes"
    for part in (first, second):
        assert (len(part.sounds), len(part.videos), part.images) == (1, 1, ())
        assert part.poster == next(link.url for link in part.links if link.kind == "image")
        assert part.texts[0].name == "Lyric"


def test_a_list_shows_the_picture_of_any_service():
    def thumbnail(response):
        return response_view.thumbnail_of(confirmed(response))

    assert thumbnail({"data": [{"image_url": "https://x/1.png"}]}) == "https://x/1.png"
    assert (
        thumbnail({"data": {"video_url": "https://x/1.mp4", "thumbnail_url": "https://x/1"}}) == "https://x/1"
    )
    assert thumbnail({"data": [{"video_url": "https://x/1.mp4"}]}) is None
