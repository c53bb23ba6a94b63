import json

import pytest

from receiver.upstream.results import read_item
from receiver.upstream.submissions import LONGEST_TEXT, bounded

PICTURE = "data:image/png;base64," + "QUJD" * 200_000


def kept(request):
    result = read_item({"id": "t1", "request": request, "response": None})
    return json.loads(result.request)


def test_what_is_short_is_kept_as_it_came():
    request = {"prompt": "x" * LONGEST_TEXT, "n": 1, "images": ["https://x/1.png"], "none": None}
    assert kept(request) == bounded(request) == request


def test_pictures_are_cut_out_wherever_they_stand_and_say_how_large_they_were():
    request = {"prompt": "a cat", "image": PICTURE, "images": [{"b64_json": PICTURE}]}
    told = kept(request)
    assert told["prompt"] == "a cat"
    for picture in (told["image"], told["images"][0]["b64_json"]):
        assert picture.startswith("data:image/png;base64,")
        assert picture.endswith(f"… (shortened, {len(PICTURE):,} characters)")


@pytest.mark.parametrize(
    "request_",
    [
        {"images": ["y" * 8000] * 500},
        {"prompt": "p", "points": [{"x": 1}] * 100_000},
        {f"name-{n}": n for n in range(100_000)},
        {"n" * 10**6: 1},
        {"prompt": "p" * 10**6},
    ],
)
def test_whatever_it_holds_what_is_kept_is_bounded(request_):
    assert len(json.dumps(kept(request_))) < 300_000


def test_a_token_does_not_survive_the_cut():
    secret = "https://us/callbacks/s3cret-token/" + "x" * 100_000
    assert "s3cret" not in json.dumps(kept({"callback_url": secret, "image": PICTURE}))


def test_the_result_itself_is_not_cut():
    result = read_item({"id": "t1", "response": {"success": True, "data": [{"b64_json": PICTURE}]}})
    assert PICTURE in (result.response or "")
