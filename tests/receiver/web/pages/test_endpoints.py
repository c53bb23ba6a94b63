"""The endpoints on the page of forwards: their health, pause, resume, test events."""

import re
from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger.models import Attempt, Endpoint, Forward
from tests.conftest import API_KEY
from tests.factories import create_endpoint, create_forward
from tests.html import csrf_token, links, sign_in, words
from tests.sink import Sink, reply

NOW = utcnow().replace(microsecond=0)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SECRET = "whsec_" + "c2VjcmV0" * 4


def press(client, path: str, **fields: str):
    """Press a button of the page of forwards, as a visitor who has signed in."""
    if client.get_cookie("backstop") is None:
        sign_in(client, API_KEY)
    token = csrf_token(client.get("/forwards").text)
    return client.post(path, data={"csrf_token": token} | fields)


def buttons(page: str) -> list[str]:
    return re.findall(r'<button name="do" value="(\w+)"', page)


def test_each_tells_its_health(get):
    one = create_endpoint("https://user:geheim@app.example/hook", succeeded_at=utcnow() - MINUTE)
    for status in ("delivered", "delivered", "failed", "pending"):
        create_forward(endpoint=one, status=status, created_at=utcnow() - 5 * MINUTE)
    page = get("/forwards")
    assert "geheim" not in page
    told = words(page)
    assert "https://***@app.example/hook working" in told
    assert "Its last success was 1 min ago." in told
    assert "2 of the newest 4 of the last 24 h delivered (50 %)" in told
    assert "1 waiting, the oldest for 5 min" in told
    assert "/forwards?endpoint=1" in links(page)


@pytest.mark.parametrize(
    ("fields", "told", "offered"),
    [
        ({}, "Nothing has been sent there yet.", ["pause", "test"]),
        (
            {"failing_since": -HOUR, "failure": "HTTP 503"},
            r"failing It has failed since .*\(1 h ago\), lately with “HTTP 503”",
            ["pause", "test"],
        ),
        (
            {"held_at": -HOUR, "held_because": "person"},
            r"paused A person paused it .*\(1 h ago\)",
            ["resume", "test"],
        ),
        (
            {"held_at": NOW, "held_because": "gone", "probe_at": 40 * MINUTE},
            r"held Held since .*: it answered 410 Gone. One event an hour is tried, the next in (39|40) min.",
            ["resume", "pause", "test"],
        ),
        (
            {
                "held_at": NOW,
                "held_because": "failing",
                "failure": "no answer in time",
                "probe_at": -HOUR,
            },
            r"it has failed for days, lately with “no answer in time”. One event an hour is tried, the next now.",
            ["resume", "pause", "test"],
        ),
        (
            {"retired_at": -HOUR},
            r"not in FORWARD_URL FORWARD_URL no longer names it, 1 h ago. Nothing is sent there",
            [],
        ),
        ({"is_app": False, "succeeded_at": NOW}, "1 server that callback URLs of tasks lead to", ["pause"]),
    ],
    ids=["new", "failing", "paused", "gone", "held", "retired", "server"],
)
def test_it_says_how_it_stands_and_offers_what_helps(get, fields, told, offered):
    now = utcnow()
    create_endpoint(
        **{name: now + value if isinstance(value, timedelta) else value for name, value in fields.items()}
    )
    page = get("/forwards")
    assert re.search(told, words(page))
    assert buttons(page) == offered


def test_a_filter_by_endpoint_shows_that_one_alone(get):
    create_endpoint()
    create_endpoint("https://other.example/")
    told = words(get("/forwards?endpoint=2").partition('<form class="card filter')[0])
    assert "https://other.example/" in told
    assert "https://app.example/hook" not in told


def test_a_person_pauses_and_resumes(client):
    create_endpoint()
    answer = press(client, "/endpoints/1", do="pause")
    assert (answer.status_code, answer.location) == (303, "/forwards")
    assert Endpoint.get().held_because == "person"
    press(client, "/endpoints/1", do="resume")
    assert Endpoint.get().held_at is None


def test_a_bad_request_changes_nothing(client, get):
    create_endpoint()
    assert press(client, "/endpoints/1", do="explode").status_code == 400
    assert press(client, "/endpoints/99", do="pause").status_code == 404
    assert client.post("/endpoints/1", data={"do": "pause"}).status_code == 400  # no form of ours
    assert Endpoint.get().held_at is None
    client.delete_cookie("backstop")
    assert client.post("/endpoints/1", data={"do": "pause"}).status_code == 401


class TestTestEvent:
    @pytest.mark.parametrize(("status", "said"), [(200, "has taken the test event"), (500, "was not taken")])
    def test_its_answer_is_shown_at_once_and_nothing_follows(self, make_client, status, said):
        with Sink(reply(status, b"<b>words</b> of the app")) as sink:
            url = f"http://user:geheim@127.0.0.1:{sink.port}/hook"
            client = make_client(FORWARD_URL=url, FORWARD_SECRET=SECRET)
            create_endpoint(url)
            answer = press(client, "/endpoints/1", do="test")
        assert answer.status_code == 200
        assert "geheim" not in answer.text
        told = words(answer.text)
        assert said in told
        assert re.search(rf"HTTP {status} after \d+ ms", told)
        assert "<b>words</b> of the app" in told
        assert "webhook-signature v1," in told
        assert '"test": true' in told
        assert not Forward.select().exists()
        assert not Attempt.select().exists()
        assert Endpoint.get().failing_since is None

    def test_no_answer_is_told(self, make_client):
        with Sink() as sink:
            url = f"http://127.0.0.1:{sink.port}/"
        client = make_client(FORWARD_URL=url, FORWARD_SECRET=SECRET)
        create_endpoint(url)
        assert re.search(
            r"was not taken: no answer after \d+ ms, .*refused",
            words(press(client, "/endpoints/1", do="test").text),
        )

    def test_a_retired_one_gets_none(self, client):
        create_endpoint(retired_at=NOW)
        assert press(client, "/endpoints/1", do="test").status_code == 409

    def test_to_load_its_answer_again_leads_to_the_list(self, client, auth):
        answer = client.get("/endpoints/1", headers=auth)
        assert (answer.status_code, answer.location) == (303, "/forwards?endpoint=1")
