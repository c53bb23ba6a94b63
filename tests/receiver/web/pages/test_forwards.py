"""The page of forwards: the list, the endpoints, what failed; one forward; sending again."""

import html
import json
import re
import subprocess
import zlib
from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import resending
from receiver.ledger.models import Attempt, Forward, Resending
from receiver.ledger.reading.forwards import ForwardFilter
from tests.conftest import API_KEY, CALLBACK_TOKEN
from tests.factories import DAY, body, create_endpoint, create_forward, record
from tests.html import SCRIPT, csrf_token, links, sign_in, words
from tests.sink import Sink, reply

NOW = utcnow().replace(microsecond=0)
HOUR = timedelta(hours=1)
SECRET_URL = f"https://user:geheim@app.example/callbacks/{CALLBACK_TOKEN}/x?a=1"
SIGNED = {"webhook-id": "msg_1", "webhook-signature": "v1,abc="}


def attempt(forward: Forward, **fields) -> Attempt:
    known = {"began_at": NOW, "took": 0.0123, "url": SECRET_URL, "headers": json.dumps(SIGNED)}
    known |= {"kind": "refused", "status": 500, "answer": b"oh no \xff", "error": None}
    return Attempt.create(forward=forward, **known | fields)


def shown(page: str) -> list[int]:
    return [int(n) for n in re.findall(r'<a class="name" href="/forwards/(\d+)"', page)]


@pytest.fixture
def press(client):
    """Presses a button: posts a form of a page as a visitor who has signed in, and returns the answer."""
    sign_in(client, API_KEY)

    def post(path: str, **fields: str):
        token = csrf_token(client.get("/").text)
        return client.post(path, data={"csrf_token": token} | fields)

    return post


class TestList:
    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("", [3, 2, 1]),
            ("status=failed", [2]),
            ("status=held", [3]),
            ("endpoint=1", [1]),
            ("type=task.failed", [3]),
            ("task=t2", [2]),
            ("cause=HTTP+500", [2]),
            ("status=failed&task=t1", []),
        ],
    )
    def test_it_filters(self, get, query, found):
        create_forward(created_at=NOW - 2 * HOUR)
        held = create_endpoint("https://held.example/", held_at=NOW, held_because="person")
        create_forward(endpoint=held, status="failed", task_id="t2", cause="HTTP 500", created_at=NOW - HOUR)
        create_forward(endpoint=held, type="task.failed", created_at=NOW)
        assert shown(get(f"/forwards?{query}")) == found

    def test_its_links_keep_the_filter_from_page_to_page(self, get):
        ids = [create_forward(status="delivered", created_at=NOW - n * HOUR).id for n in range(60)]
        create_forward()
        page = get("/forwards?status=delivered&endpoint=1&type=")
        (older,) = [url for url in links(page) if "before=" in url]
        assert "status=delivered" in older
        assert "endpoint=1" in older
        assert shown(page) + shown(get(older)) == ids

    @pytest.mark.parametrize(
        "query", ["status=lost", "endpoint=x", "type=task.confirmed", "task=%00", "since=x", "before=x"]
    )
    def test_a_bad_question_is_a_400_that_says_why(self, get, query):
        assert query.partition("=")[0] in words(get(f"/forwards?{query}", 400))

    def test_what_was_given_up_is_grouped_by_cause(self, get):
        for cause in ("HTTP 500", "HTTP 500", "no answer in time"):
            create_forward(status="failed", cause=cause)
        page = get("/forwards")
        assert re.search(r"HTTP 500 2 .* no answer in time 1 ", words(page))
        assert "/forwards?status=failed&cause=HTTP+500" in links(page)
        assert len(shown(get("/forwards?status=failed&cause=HTTP+500"))) == 2
        assert "/forwards/resend?status=failed&cause=HTTP+500" in links(page)

    def test_it_says_how_to_set_it_up(self, get):
        page = words(get("/forwards"))
        assert "Tell your app of each result" in page
        assert "FORWARD_SECRET" in page

    def test_it_says_when_only_the_reconciler_is_missing(self, make_client, auth):
        client = make_client(FORWARD_URL="https://app.example/hook", FORWARD_SECRET="whsec_" + "c2VjcmV0" * 4)
        page = words(client.get("/forwards", headers=auth).text)
        assert "the reconciler does not know of it yet" in page
        assert "openssl" not in page

    def test_it_says_that_there_is_none(self, get):
        create_endpoint()
        assert "There is nothing to tell yet." in words(get("/forwards"))
        assert "No stored forward matches." in words(get("/forwards?status=failed"))

    @pytest.mark.parametrize("path", ["/forwards", "/forwards/1", "/forwards/1/body", "/forwards/resend"])
    def test_it_wants_the_api_key(self, client, path):
        create_forward(task_id="secret-task")
        answer = client.get(path)
        assert answer.status_code in (302, 303, 401)
        assert "secret-task" not in answer.text


class TestForward:
    def test_it_shows_each_attempt_as_it_was_sent_and_answered(self, get):
        one = create_forward(url=SECRET_URL, body=zlib.compress('{"é": 1}'.encode()), attempts=2)
        attempt(one)
        attempt(one, kind="timeout", status=None, answer=b"", error="no answer in time", took=15.0)
        page = get(f"/forwards/{one.id}")
        assert "geheim" not in page
        assert CALLBACK_TOKEN not in page
        told = words(page)
        assert "no answer after 15,000 ms: no answer in time" in told
        assert "HTTP 500 after 12 ms" in told
        assert "POST https://***@app.example/callbacks/***/x?a=1" in told
        assert "webhook-signature v1,abc=" in told
        assert "oh no \ufffd" in told
        assert '"é": 1' in told

    def test_it_says_when_and_why_the_next_attempt_comes(self, get):
        one = create_forward(attempts=3, cause="HTTP 500", next_attempt_at=utcnow() + timedelta(minutes=7))
        assert re.search(
            r"Next attempt in [67] min, at .*: attempt 3 failed: HTTP 500\.",
            words(get(f"/forwards/{one.id}")),
        )
        held = create_endpoint("https://held.example/", held_at=NOW, held_because="person")
        waits = create_forward(endpoint=held, task_id="t2")
        assert "Unknown: a person has paused its endpoint." in words(get(f"/forwards/{waits.id}"))

    def test_what_others_say_cannot_run_a_script(self, get):
        one = create_forward(
            task_id=SCRIPT,
            status="failed",
            cause=SCRIPT,
            body=zlib.compress(json.dumps({"a": SCRIPT}).encode()),
        )
        attempt(one, answer=SCRIPT.encode(), error=SCRIPT, headers=json.dumps({"x": SCRIPT}))
        for path in (f"/forwards/{one.id}", "/forwards"):
            assert "<script>alert" not in get(path)

    @pytest.mark.parametrize("size", [10, 20_000])
    def test_its_last_attempt_as_a_command_posts_the_same(self, get, client, auth, tmp_path, size):
        """A short body is in the command, a long one in the file that the page offers."""
        sent = json.dumps({"it's": 'a "quote" $HOME `id` \\ é' + "x" * size}, ensure_ascii=False).encode()
        with Sink(reply(200)) as sink:
            one = create_forward(body=zlib.compress(sent))
            attempt(one, url=f"http://127.0.0.1:{sink.port}/hook?a=1&b='2'")
            page = get(f"/forwards/{one.id}")
            whole = client.get(f"/forwards/{one.id}/body", headers=auth)
            assert whole.data == sent
            assert whole.mimetype == "application/octet-stream"
            name = re.search('filename="(.*)"', whole.headers["Content-Disposition"])[1]
            (tmp_path / name).write_bytes(whole.data)
            command = html.unescape(re.search(r'<code id="command">(.*?)</code>', page, re.DOTALL)[1])
            assert ("xxx" in command) == (size < 20_000)
            assert ("“Download the bytes” saves" in words(page)) == (size == 20_000)
            subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True, timeout=30)
            (received,) = sink.received
        assert received.body == sent
        assert received.headers["webhook-signature"] == "v1,abc="

    def test_what_it_resends_and_what_resent_it(self, get):
        first = create_forward(status="failed")
        again = resending.resend(first.id, NOW)
        page = get(f"/forwards/{first.id}")
        assert f"/forwards/{again}" in links(page)
        assert "resent" in words(page)
        page = get(f"/forwards/{again}")
        assert f"Sends again forward {first.id}, with the same webhook-id" in words(page)

    @pytest.mark.parametrize("number", [99, 10**30])
    def test_there_is_none(self, get, number):
        assert "No such forward" in words(get(f"/forwards/{number}", 404))
        get(f"/forwards/{number}/body", 404)

    def test_a_button_sends_it_again_and_leads_to_what_is_due(self, press):
        one = create_forward(status="failed")
        answer = press(f"/forwards/{one.id}", do="resend")
        due = Forward.get(Forward.resends == one.id)
        assert (answer.status_code, answer.location) == (303, f"/forwards/{due.id}")

    def test_a_button_dismisses_it(self, press):
        one = create_forward(status="failed")
        assert press(f"/forwards/{one.id}", do="dismiss").status_code == 303
        assert Forward.get_by_id(one.id).status == "dismissed"
        assert press(f"/forwards/{one.id}", do="dismiss").status_code == 409

    def test_a_form_of_another_site_changes_nothing(self, client):
        sign_in(client, API_KEY)
        one = create_forward(status="failed")
        for path in (f"/forwards/{one.id}", "/forwards/resend?status=failed"):
            assert client.post(path, data={"do": "dismiss", "rate": "1"}).status_code == 400
        assert Forward.get().status == "failed"
        assert not Resending.select().exists()


class TestSendingAgain:
    def test_it_tells_the_number_before(self, get):
        for task in ("t1", "t2", "t3"):
            create_forward(status="failed" if task < "t3" else "delivered", task_id=task, cause="HTTP 500")
        page = words(get("/forwards/resend?status=failed&cause=HTTP+500"))
        assert "2 forwards with status failed, cause “HTTP 500” will be sent again." in page
        assert "No stored forward has task “t9”." in words(get("/forwards/resend?task=t9"))
        assert "choose a filter" in words(get("/forwards/resend"))

    def test_it_says_when_they_are_too_many_to_count(self, get, monkeypatch):
        monkeypatch.setattr("receiver.ledger.choosing.MOST_TO_COUNT", 1)
        for _ in range(2):
            create_forward(status="failed")
        assert "Narrow the filter by time first." in words(get("/forwards/resend?status=failed"))

    def test_a_form_orders_it_and_the_list_shows_the_progress_until_it_is_stopped(self, press, get):
        for _ in range(3):
            create_forward(status="failed")
        answer = press("/forwards/resend?status=failed&endpoint=1", rate="2.5")
        assert (answer.status_code, answer.location) == (303, "/forwards")
        ordered = Resending.get()
        assert resending.wanted_of(ordered) == ForwardFilter(status="failed", endpoint=1)
        resending.advance(utcnow())
        told = words(get("/forwards"))
        assert "Sending again: 1 of 3 forwards (status failed, endpoint 1), 2.5 a second" in told
        assert press(f"/resendings/{ordered.id}").status_code == 303
        assert "Stopped: 1 of 3 forwards" in words(get("/forwards"))
        assert press(f"/resendings/{ordered.id}").status_code == 409

    def test_one_that_ended_long_ago_is_not_told_any_more(self, get):
        ordered = resending.order(ForwardFilter(status="failed"), 1, utcnow() - DAY)
        assert ordered.ended_at is not None
        assert "Sent again:" not in words(get("/forwards"))

    @pytest.mark.parametrize("rate", ["", "x", "0", "nan", "inf", "1e9"])
    def test_a_bad_rate_is_refused(self, press, rate):
        create_forward(status="failed")
        assert press("/forwards/resend?status=failed", rate=rate).status_code == 400
        assert not Resending.select().exists()

    def test_it_wants_a_filter(self, press):
        assert press("/forwards/resend", rate="1").status_code == 400


class TestTask:
    def test_its_timeline_tells_what_the_app_was_told(self, get, client, auth):
        record(body("t1"), now=NOW - HOUR)
        one = create_forward(status="delivered", url=SECRET_URL)
        attempt(one, error="no answer in time", status=None, kind="timeout")
        attempt(one, kind="delivered", status=204, began_at=NOW + HOUR)
        page = get("/tasks/t1")
        assert "geheim" not in page
        told = words(page)
        assert re.search(
            r"not delivered to app.example:443: no answer in time .*delivered to app.example:443: HTTP 204",
            told,
        )
        assert f"/forwards/{one.id}" in links(page)
        events = client.get("/api/tasks/t1", headers=auth).json["timeline"]
        assert [event["event"] for event in events][-2:] == ["attempt", "delivered"]

    def test_it_tells_how_a_forward_ended_and_that_a_person_sent_it_again(self, get):
        record(body("t1"), now=NOW - HOUR)
        first = create_forward(status="failed", cause="HTTP 500")
        resending.resend(first.id, utcnow())
        dropped = create_forward()
        resending.dismiss(dropped.id, utcnow())
        told = words(get("/tasks/t1"))
        assert f"task.succeeded given up (forward {first.id})" in told
        assert "task.succeeded is sent again at a person's word" in told
        assert f"task.succeeded dismissed by a person (forward {dropped.id})" in told
