"""The list of deliveries, on its page and in the API; a delivery's page and its bytes."""

import json
import re
from datetime import timedelta

import pytest

from receiver.clock import to_iso, utcnow
from receiver.ledger.models import Delivery
from receiver.ledger.reading import deliveries
from receiver.web.pages.callback_answers import answer_to
from tests import factories
from tests.conftest import CALLBACK_TOKEN
from tests.html import links, words
from tests.rereading import received, reread

NOW = utcnow()
DAY = timedelta(days=1)


@pytest.fixture
def some(client):
    """Deliveries of all kinds; the one that named no task came three days ago."""
    factories.record(b'{"oops', now=NOW - 3 * DAY, ref="order-9", remote_addr="203.0.113.7", token=0)
    factories.record(factories.body("t1"), now=NOW - 2 * DAY, ref="order-1")
    factories.record(factories.failure_body("t2"), now=NOW - DAY)
    factories.record(factories.progress_body("t1"), now=NOW)


def shown(page: str) -> list[str]:
    return re.findall(r'<a class="name" href="/deliveries/(\d+)"', page)


def ids(answer) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json["items"]]


FILTERS = [
    ("", [4, 3, 2, 1]),
    ("verdict=unreadable", [1]),
    ("verdict=succeeded", [2]),
    ("verdict=failed&task=t2", [3]),
    ("verdict=failed&task=t1", []),
    ("task=t1", [4, 2]),
    pytest.param("task=t1&until=" + to_iso(NOW), [2], id="until"),
    pytest.param("since=" + to_iso(NOW - 2 * DAY), [4, 3, 2], id="since"),
]


@pytest.mark.usefixtures("some")
@pytest.mark.parametrize(("query", "found"), FILTERS)
def test_the_page_and_the_api_filter(client, auth, get, query, found):
    assert shown(get(f"/deliveries?{query}")) == [str(n) for n in found]
    assert ids(client.get(f"/api/deliveries?{query}", headers=auth)) == found


@pytest.mark.usefixtures("some")
def test_the_api_shows_what_is_known_of_a_delivery_without_its_body(client, auth):
    (item,) = client.get("/api/deliveries?verdict=unreadable", headers=auth).json["items"]
    assert item == {
        "id": 1,
        "received_at": to_iso(NOW - 3 * DAY),
        "verdict": "unreadable",
        "ref": "order-9",
        "remote_addr": "203.0.113.7",
        "token": 1,
        "size": 6,
        "sha256": bytes(Delivery.get_by_id(1).digest).hex(),
        "reread_at": None,
        "first_verdict": "unreadable",
        "task_id": None,
        "problem": {"code": "bad_json", "message": "The body is not JSON (line 1)."},
    }


def test_one_that_was_read_again_tells_when_and_what_it_was_before(client, auth, get):
    delivery_id = received(factories.body("t1"))
    reread()
    (item,) = client.get("/api/deliveries", headers=auth).json["items"]
    assert (item["verdict"], item["first_verdict"], item["problem"]) == ("succeeded", "unreadable", None)
    assert item["reread_at"] == to_iso(Delivery.get().reread_at)
    shown = words(get(f"/deliveries/{delivery_id}"))
    assert "Read again" in shown
    assert "it was unreadable when it came" in shown
    # What we answered then stays true.
    assert "202 It was kept, but it could not be read as a result." in shown
    task = client.get("/api/tasks/t1", headers=auth).json
    assert task["deliveries"][0]["reread_at"] == item["reread_at"]
    size = len(factories.body("t1"))
    assert [(event["event"], event["detail"]) for event in task["timeline"]] == [
        ("delivery", f"callback of {size} bytes is unreadable"),
        ("reread", f"delivery {delivery_id} was read again: succeeded"),
        ("settled", "settled as succeeded by a callback"),
    ]
    reread()
    assert "it was unreadable when it came" in words(get(f"/deliveries/{delivery_id}"))


def test_one_that_says_the_same_again_tells_so(get):
    factories.record(factories.body("t1"), now=NOW)
    reread()
    assert "it says the same as when it came" in words(get("/deliveries/1"))


@pytest.mark.usefixtures("some")
def test_both_page_to_the_end(client, auth, get, monkeypatch):
    monkeypatch.setattr(deliveries, "MOST_LOOKED_AT", 1)  # a search that no index serves goes on too
    for query in ("limit=2", "limit=1", "verdict=succeeded&limit=1"):
        found, before = [], ""
        while before is not None:
            answer = client.get(f"/api/deliveries?{query}{before and f'&before={before}'}", headers=auth)
            found += ids(answer)
            before = answer.json["next"]
        assert found == ([2] if "verdict" in query else [4, 3, 2, 1])
    page = get("/deliveries?verdict=succeeded")
    assert "Nothing found back to" in words(page)
    for _ in range(2):
        (further,) = [url for url in links(page) if "before=" in url]
        page = get(further)
    assert shown(page) == ["2"]


def test_the_page_has_a_link_to_older_ones(get):
    factories.register("t1")
    for n in range(60):
        factories.record(factories.progress_body("t1", n), now=NOW - timedelta(minutes=n))
    page = get("/deliveries?task=t1")
    (older,) = [url for url in links(page) if "before=" in url]
    assert "task=t1" in older
    assert len(shown(page)) == 50
    assert len(shown(get(older))) == 10


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("verdict=expired", "verdict must be one of unreadable, pending, succeeded, failed."),
        ("since=x", "since must be a moment"),
        ("since=2026-02-01&until=2026-01-01", "since must not be after until."),
        ("before=x", "before must be a cursor"),
        ("before=WyIyMDI2LTAxLTAxVDAwOjAwOjAwWiIsICJ0MSJd", "before must be a cursor"),  # of a task
        ("task=%00", "The task holds a NUL"),
    ],
)
def test_a_bad_question_is_a_400_that_says_why(client, auth, get, query, complaint):
    assert complaint in words(get(f"/deliveries?{query}", 400))
    answer = client.get(f"/api/deliveries?{query}", headers=auth)
    assert (answer.status_code, complaint in answer.json["error"]["message"]) == (400, True)


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "status=failed"])
def test_the_api_refuses_what_it_does_not_know(client, auth, query):
    assert client.get(f"/api/deliveries?{query}", headers=auth).status_code == 400


@pytest.mark.parametrize("path", ["/api/deliveries", "/deliveries", "/deliveries/1", "/deliveries/1/body"])
def test_they_want_the_api_key(client, path):
    factories.record(factories.body("secret-task"))
    answer = client.get(path)
    assert answer.status_code in (302, 303, 401)
    assert "secret-task" not in answer.text


def test_it_says_that_there_is_none(get):
    assert "No callback has come yet." in words(get("/deliveries"))
    assert "No stored delivery matches." in words(get("/deliveries?task=t1"))


@pytest.mark.usefixtures("some")
def test_those_that_named_no_task_are_found_from_the_overview_after_a_day_too(get):
    page = get("/")
    assert "None came in the last 24 h." in words(page)
    assert "/deliveries?verdict=unreadable" in links(page)
    assert shown(get("/deliveries?verdict=unreadable")) == ["1"]


def test_an_overview_without_any_does_not_speak_of_them(get):
    factories.record(factories.body("t1"))
    assert "/deliveries?verdict=unreadable" not in links(get("/"))


class TestWhatWeAnswered:
    """What a delivery's page says we answered is what the sender got."""

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (factories.body("t1"), 200),
            (factories.failure_body("t1"), 200),
            (b"", 202),
            (b'{"oops', 202),
            (b"[]", 202),
            (b"{}", 202),
            (b"\xff", 202),
            (b'{"task_id": "' + b"x" * 3000 + b'"}', 413),
        ],
    )
    def test_it_is_told(self, make_client, auth, body, status):
        client = make_client(MAX_BODY_BYTES=2000)
        answered = client.post(f"/callbacks/{CALLBACK_TOKEN}", data=body)
        assert answered.status_code == status
        told = answer_to(Delivery.get())
        assert told.status == status
        if status != 200:
            assert json.loads(told.body) == answered.json
        page = words(client.get("/deliveries/1", headers=auth).text)
        assert f"What we answered {status} " in page
        assert ("waited in the spool" in page) == (status != 413)


class TestBody:
    def test_the_bytes_can_be_downloaded_unchanged(self, client, auth, get):
        raw = b'\xef\xbb\xbf{"task_id": "t1",\r\n "x": "\xff\x00<script>"}'
        factories.record(raw)
        assert "/deliveries/1/body" in links(get("/deliveries/1"))
        answer = client.get("/deliveries/1/body", headers=auth)
        assert (answer.status_code, answer.data) == (200, raw)
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="backstop-delivery-1.bin"'
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "no-store" in answer.headers["Cache-Control"]

    def test_one_that_is_not_there_is_a_404(self, client, auth):
        for number in (1, 2**70):
            assert client.get(f"/deliveries/{number}/body", headers=auth).status_code == 404

    def test_its_json_is_shown_indented_beside_it_with_tokens_masked(self, get):
        url = f"https://backstop.example/callbacks/{CALLBACK_TOKEN}"
        escaped = "".join(f"\\u{ord(letter):04x}" for letter in CALLBACK_TOKEN)
        factories.record(f'{{"task_id":"t1","a":[1,{{"b":"é"}}],"u":"{url}","e":"{escaped}"}}'.encode())
        page = get("/deliveries/1")
        indented = re.search(r'id="indented-1">(.*?)</code>', page, re.DOTALL)[1]
        assert '"a": [\n    1,\n    {\n      "b": "é"' in indented.replace("&#34;", '"')
        assert CALLBACK_TOKEN not in page

    @pytest.mark.parametrize("raw", [b'{"oops', b"\xff\xfe", b"", b"[" * 5000])
    def test_what_is_no_json_is_shown_as_it_came_alone(self, get, raw):
        factories.record(raw)
        assert "indented" not in get("/deliveries/1")
