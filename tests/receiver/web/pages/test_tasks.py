"""The list of tasks with its filters and exports, a task's page, and a delivery's."""

import csv
import html
import io
import json
import re
from datetime import timedelta
from urllib.parse import quote

import pytest

from receiver.clock import utcnow
from receiver.ledger import pauses, store
from receiver.ledger.models import Delivery, Task, database
from receiver.ledger.reading import listing
from receiver.upstream.results import STATUSES
from receiver.upstream.services import DEFAULT
from tests import factories
from tests.conftest import API_KEY, CALLBACK_TOKEN
from tests.factories import sample
from tests.html import SCRIPT, csrf_token, links, listed, run_now, sign_in, words

LOADED = re.compile(r'<(?:img|video|audio)[^>]* src="(https?:[^"]*)"')


def confirmed(task_id, **response):
    """Return the Tasks API's object of a task that succeeded."""
    item = factories.finished_item(task_id)
    return item | {"response": item["response"] | response}


def finish(task_id, response, **fields):
    """Let the Tasks API tell a task's result."""
    factories.register(task_id, now=utcnow() - timedelta(minutes=5), grace=timedelta(0), **fields)
    item = factories.item(task_id, {"task_id": task_id, "success": True} | response, finished_at=1720364637.4)
    factories.look_up([item])


@pytest.fixture
def one_of_each(client):
    """A ledger with a task of each status, one of which a callback has forged."""
    now = utcnow()
    factories.register("expired", now=now - timedelta(days=2), grace=timedelta(0))
    factories.give_up(now=now - timedelta(hours=1))
    factories.register("lost", now=now - timedelta(minutes=5), grace=timedelta(0), type="edits")
    factories.look_up([factories.finished_item("lost", request={"prompt": "a Harbour in fog"})], now=now)
    factories.record(factories.body("disputed"), confirm=True)
    factories.look_up([factories.failed_item("disputed")])
    factories.register("pending", type="imagine", ref="order-1", trace_id="trace-1")
    factories.record(factories.body("succeeded"))


@pytest.mark.usefixtures("one_of_each")
@pytest.mark.parametrize(
    ("query", "found"),
    [
        *((f"status={status}", {status}) for status in ("pending", "expired")),
        ("status=succeeded", {"succeeded", "lost"}),
        ("status=failed", {"disputed"}),
        ("type=edits", {"lost"}),
        ("settled_by=lookup", {"lost", "disputed"}),
        ("settled_by=callback", {"succeeded"}),
        ("disputed=true", {"disputed"}),
        ("disputed=false", {"succeeded", "lost", "pending", "expired"}),
        ("missed=true", {"lost"}),
        ("missed=false", {"succeeded", "disputed", "pending", "expired"}),
        ("status=succeeded&settled_by=lookup&missed=true", {"lost"}),
        ("q=pending", {"pending"}),
        ("q=order-1", {"pending"}),
        ("q=trace-1", {"pending"}),
        ("q=fog+HARBOUR", {"lost"}),
        ("q=fog+lighthouse", set()),
        ("q=order-1&status=failed", set()),
        ("q=++&status=&type=", {"succeeded", "disputed", "lost", "pending", "expired"}),
    ],
)
def test_it_filters_and_searches(get, query, found):
    assert set(listed(get(f"/tasks?{query}"))) == found


def test_of_several_services_it_shows_one(get, other_service):
    factories.register("theirs", service=other_service)
    factories.register("ours")
    page = get(f"/tasks?service={other_service}")
    assert listed(page) == ["theirs"]
    assert f'<option value="{other_service}" selected>' in page
    assert f"<span>{other_service}</span>" in page
    assert f"<dt>Service</dt><dd>{other_service}</dd>" in get("/tasks/theirs")
    for path in ("/", "/tasks"):  # the services are mixed there
        assert {f"<span>{name}</span>" in get(path) for name in (other_service, DEFAULT.name)} == {True}


def test_with_one_service_in_use_no_list_names_it(get):
    factories.register("ours", type="imagine")
    for path in ("/", "/tasks"):
        assert 'name="service"' not in get(path)
        assert f"<span>{DEFAULT.name}</span>" not in get(path)
    page = get("/tasks?service=suno")  # from a bookmark
    assert listed(page) == []
    assert '<option value="suno" selected>' in page


@pytest.mark.usefixtures("one_of_each")
def test_it_filters_by_when_a_task_was_first_heard_of(get):
    yesterday = f"{utcnow() - timedelta(days=1):%Y-%m-%dT%H:%M}"
    assert listed(get(f"/tasks?until={yesterday}")) == ["expired"]
    assert "expired" not in listed(get(f"/tasks?since={yesterday}Z"))
    assert listed(get(f"/tasks?since={yesterday}&until={yesterday}")) == []


def test_the_filters_stand_in_the_form_and_in_every_link(get):
    for n in range(30):
        factories.register(f"t{n:02}", type="imagine", now=utcnow() - timedelta(minutes=n))
    page = get("/tasks?type=imagine&status=pending&since=2020-01-31T12:00&q=")
    assert '<option value="pending" selected>' in page
    assert 'value="imagine"' in page
    assert 'value="2020-01-31T12:00"' in page
    (older,) = [url for url in links(page) if "before=" in url]
    assert "type=imagine" in older
    assert "status=pending" in older
    assert listed(page) + listed(get(older)) == [f"t{n:02}" for n in range(30)]
    assert "Older" not in words(get(older))
    (newest,) = re.findall(r'<a href="([^"]*)">Newest</a>', get(older))
    assert listed(get(html.unescape(newest))) == listed(page)


def test_a_new_task_does_not_shift_the_pages(get):
    for n in range(25):
        factories.register(f"t{n:02}", now=utcnow() - timedelta(minutes=n))
    (older,) = [url for url in links(get("/tasks")) if "before=" in url]
    factories.register("new")
    assert listed(get(older)) == [f"t{n:02}" for n in range(20, 25)]


def test_a_search_that_no_index_serves_says_how_far_it_has_looked_and_goes_on(get, monkeypatch):
    monkeypatch.setattr(listing, "MOST_LOOKED_AT", 10)
    now = utcnow()
    factories.record(factories.body("wanted"), now=now - timedelta(minutes=25))
    for n in range(30):
        factories.register(f"t{n:02}", type="imagine", now=now - timedelta(minutes=n))
    pages, url = 0, "/tasks?settled_by=callback"
    while True:
        page = get(url)
        pages += 1
        if listed(page):
            break
        assert "Nothing found back to" in words(page)
        assert 'hx-trigger="load delay:100ms"' in page
        (url,) = {link for link in links(page) if "before=" in link}
    assert (pages, listed(page)) == (3, ["wanted"])
    assert "Looked back to" in words(page)  # four more it has not looked at
    assert 'hx-trigger="load' not in page
    (url,) = {link for link in links(page) if "before=" in link}
    assert "no older task matches" in words(get(url))


def test_a_search_that_has_gone_on_to_the_end_says_that_there_is_none(get, monkeypatch):
    monkeypatch.setattr(listing, "MOST_LOOKED_AT", 10)
    factories.register(*(f"t{n:02}" for n in range(15)))
    page = get("/tasks?q=t0")
    (older,) = {link for link in links(page) if "before=" in link}
    page = words(get(older))
    assert "No task matches. Ids, refs and trace ids must be complete." in page
    assert "Newest" not in page


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("status=broken", "status must be one of pending, failed, succeeded, expired."),
        ("settled_by=me", "settled_by must be one of"),
        ("disputed=maybe", "disputed must be one of true, false."),
        ("q=%00", "holds a NUL"),
        ("since=yesterday", "since must be a moment like 2026-01-31T12:00Z"),
        ("since=2026-01-31&until=2026-01-30", "since must not be after until."),
        ("before=x", "before must be a cursor"),
    ],
)
def test_a_bad_question_is_a_400_that_says_why(get, query, complaint):
    assert complaint in words(get(f"/tasks?{query}", 400))


def test_it_says_that_there_is_none(get):
    assert "There is no task yet." in words(get("/tasks"))
    assert "No task matches." in words(get("/tasks?status=failed"))


def test_it_shows_all_of_a_task(get):
    now = utcnow()
    factories.register(
        "t1", now=now - timedelta(minutes=5), ref="order-1", type="imagine", trace_id="trace-1"
    )
    image = "https://x/1.png?a=1&b=2"
    factories.record(factories.body("t1", image_url=image), confirm=True, remote_addr="203.0.113.7")
    factories.record(factories.body("t1", image_url=image), remote_addr="203.0.113.7")
    factories.look_up([factories.finished_item("t1", request={"prompt": "a lighthouse"})])
    page = get("/tasks/t1")
    for text in ("a lighthouse", "order-1", "imagine", "trace-1", "203.0.113.7", "same as an earlier one"):
        assert text in words(page)
    assert "Confirmed: callback and Tasks API both say succeeded." in words(page)
    assert "None: upstream has given its final answer." in words(page)
    assert "settled as succeeded by a callback" in words(page)
    assert "5 min after it was registered" in words(page)
    assert '"prompt": "a lighthouse"' in words(page)
    assert 'loading="lazy" referrerpolicy="no-referrer"' in page
    assert set(re.findall(r'href="(/deliveries/\d+|/runs/\d+)"', page)) == {
        *(f"/deliveries/{delivery.id}" for delivery in Delivery.select()),
        "/runs/1",
    }


def test_a_long_prompt_is_a_short_heading_and_stands_below_as_a_whole(get):
    prompt = "a lighthouse at dusk, " * 60
    factories.register("t1", now=utcnow() - timedelta(minutes=5), grace=timedelta(0))
    factories.look_up([factories.finished_item("t1", request={"prompt": prompt})])
    page = get("/tasks/t1")
    assert len(html.unescape(re.search(r"<h1[^>]*><bdi>(.*?)</bdi></h1>", page)[1])) <= 121
    shown = re.search(r'<bdi id="prompt"[^>]*>(.*?)</bdi>', page)[1]
    assert html.unescape(shown).strip() == prompt.strip()


def test_a_video_can_be_played_and_is_not_loaded_before(get):
    video = {"video_url": "https://x/1.mp4", "video_urls": ["https://x/2.mp4"]}
    factories.record(factories.body("t1", **video), confirm=True)
    assert not LOADED.findall(get("/tasks/t1"))
    factories.look_up([confirmed("t1", **video)])
    page = get("/tasks/t1")
    assert '<video controls preload="none" src="https://x/1.mp4" poster="https://x/1.png"' in page


def test_each_song_of_a_task_has_a_player_its_picture_and_its_lyric(get):
    songs = sample("services/suno_callback_success.json")
    finish("t1", {"data": songs["data"]}, service="suno", type="audios")
    page = get("/tasks/t1")
    assert page.count('<audio controls preload="none" src="https://cdn.example.com/') == 2
    assert page.count('<video controls preload="none" src="https://cdn.example.com/') == 2
    assert page.count("<h3><bdi>Holiday Wishes</bdi></h3>") == 2
    assert words(page).count("Lyric [Verse] Snow is falling soft and white") == 2
    assert len(LOADED.findall(page)) == 4
    assert {song[name] for song in songs["data"] for name in ("image_url", "audio_url", "video_url")} <= set(
        links(page)
    )


def test_pictures_stand_side_by_side_and_parts_without_a_title_have_numbers(get):
    pictures = [f"https://x/{n}.png" for n in range(4)]
    finish("t1", {"image_urls": pictures, "data": [{"url": "https://x/a.glb"}]})
    page = get("/tasks/t1")
    assert LOADED.findall(page) == pictures
    assert "The image 4 of 4 that upstream made: Result 1" in page
    assert "Result 2" in words(page)
    assert "https://x/a.glb" in links(page)


def test_a_file_in_the_response_itself_is_told(get):
    finish("t1", {"data": [{"b64_json": "QUJD"}]})
    assert "The response itself holds a file as base64." in words(get("/tasks/t1"))


def test_a_title_and_a_text_of_a_result_are_only_text(get):
    text = f"{SCRIPT}\n" * 20
    finish("t1", {"title": SCRIPT, "lyric": SCRIPT, "text": text, "audio_url": f"https://x/{SCRIPT}"})
    page = get("/tasks/t1")
    assert SCRIPT in html.unescape(page)
    assert "<script>alert" not in page


@pytest.mark.parametrize(
    "said",
    [{"image_url": "https://x/1.png"}, {"video_url": "https://x/1.mp4"}, {"audio_url": "https://x/1.mp3"}],
)
def test_nothing_is_loaded_that_only_a_callback_has_told(get, said):
    factories.record(factories.body("t1", **{"image_url": None} | said), confirm=True)
    for path in ("/", "/tasks", "/tasks/t1"):
        assert not LOADED.findall(get(path)), path
    (url,) = said.values()
    assert url in links(get("/tasks/t1"))  # for those who want to follow it
    assert "once the Tasks API has confirmed them" in words(get("/tasks/t1"))
    factories.look_up([factories.failed_item("t1")])
    for path in ("/", "/tasks", "/tasks/t1"):
        assert not LOADED.findall(get(path)), path


def test_what_upstream_confirmed_is_loaded_where_it_is_https(get):
    factories.record(factories.body("safe"), confirm=True)
    factories.record(factories.failure_body("forged"), confirm=True)
    http = {"image_url": "http://x/1.png", "video_url": "http://x/1.mp4"}
    factories.record(factories.body("plain", **http), confirm=True)
    factories.look_up([confirmed("safe"), confirmed("forged"), confirmed("plain", **http)])
    assert len(LOADED.findall(get("/tasks"))) == 2
    assert LOADED.findall(get("/tasks/safe")) == ["https://x/1.png"]
    assert LOADED.findall(get("/tasks/forged")) == ["https://x/1.png"]
    assert not LOADED.findall(get("/tasks/plain"))
    assert set(http.values()) <= set(links(get("/tasks/plain")))


def test_it_says_that_upstream_changed_its_final_answer_and_which_counts(get):
    now = utcnow()
    factories.register("t1", now=now - timedelta(minutes=9), grace=timedelta(0))
    factories.look_up([factories.finished_item("t1")], now - timedelta(minutes=5))
    assert "changed its final answer" not in words(get("/tasks/t1"))
    store.ask_now("t1", now)
    factories.look_up([factories.failed_item("t1")], now)
    page = words(get("/tasks/t1"))
    assert "Upstream has changed its final answer: it said succeeded, and" in page
    assert "it said failed. The status is succeeded" in page
    assert "upstream changed its final answer from succeeded to failed: succeeded counts" in page


class TestAcknowledging:
    @pytest.fixture
    def press(self, client, auth):
        """Presses the button that a page has for it."""

        def press(path):
            page = client.get(path).text
            (action,) = re.findall(
                r'<form[^>]*action="([^"]*)" method="post">(?:(?!</form>).)*Acknowledge', page, re.S
            )
            data = {"csrf_token": csrf_token(page), "do": "acknowledge"}
            answer = client.post(html.unescape(action), data=data)
            assert answer.status_code == 303
            return words(client.get(answer.location).text)

        sign_in(client, API_KEY)
        return press

    @pytest.fixture
    def disputed(self, client):
        for task_id in ("t1", "t2"):
            factories.record(factories.body(task_id), confirm=True)
        factories.look_up([factories.failed_item("t1"), factories.failed_item("t2")])
        run_now()

    @pytest.mark.usefixtures("disputed")
    def test_the_overview_becomes_green_again(self, press, get):
        assert "Attention: 2 tasks of the last 24 h are disputed" in words(get("/"))
        page = press("/tasks/t1")
        assert "A person acknowledged this" in page
        assert "a person acknowledged the dispute" in page
        assert "Acknowledge the dispute" not in page
        assert "Attention: 1 task of the last 24 h is disputed" in words(get("/"))
        press("/tasks/t2")
        assert "All is well" in words(get("/"))
        assert listed(get("/tasks?disputed=true&acknowledged=true")) == listed(get("/tasks?disputed=true"))

    @pytest.mark.usefixtures("disputed")
    def test_all_that_a_list_holds_at_once(self, press, get):
        (path,) = {url for url in links(get("/")) if "acknowledged=false" in url}
        assert set(listed(get(path))) == {"t1", "t2"}
        assert "No task matches." in press(path)
        assert "All is well" in words(get("/"))
        for query in ("", "?disputed=true", "?acknowledged=true"):
            assert "Acknowledge all" not in words(get(f"/tasks{query}"))

    @pytest.mark.usefixtures("disputed")
    def test_it_wants_a_form_of_ours(self, client, auth, get):
        for path in ("/tasks/t1", "/tasks?disputed=true"):
            assert client.post(path, data={"do": "acknowledge"}, headers=auth).status_code == 400
        assert "are disputed" in words(get("/"))

    def test_a_task_without_a_dispute_is_a_409(self, client, auth):
        factories.record(factories.body("t1"))
        data = {"csrf_token": csrf_token(client.get("/sign-in").text), "do": "acknowledge"}
        assert client.post("/tasks/t1", data=data, headers=auth).status_code == 409


def test_a_disputed_task_shows_both_versions_side_by_side(get):
    factories.record(factories.failure_body("t1", "forged"), confirm=True)
    factories.look_up([factories.finished_item("t1")])
    page = words(get("/tasks/t1"))
    assert "The callback says failed" in page
    assert "Upstream says succeeded" in page
    assert "Disputed: a callback says failed, the Tasks API says succeeded." in page
    factories.record(factories.body("t2"))
    assert "Two versions" not in words(get("/tasks/t2"))


def test_a_task_that_is_not_there_is_a_404_page(get):
    for path in ("/tasks/unknown", "/tasks/with/slashes//and?x=1", "/tasks/a%00b", f"/tasks/{quote(SCRIPT)}"):
        page = words(get(path, 404))
        assert "No such task" in page
        assert "What to do" in page


def test_a_task_that_is_due_says_what_keeps_it_waiting(get):
    factories.register("t1", grace=timedelta(0), now=utcnow() - timedelta(minutes=1))
    assert "Due, but the reconciler has never run." in words(get("/tasks/t1"))
    run_now()
    assert "Due now: the next run asks." in words(get("/tasks/t1"))
    pauses.pause_account("upstream answered 403 used_up", utcnow())
    assert re.search(
        r"Due, but upstream has refused look-ups since .* the next probe comes in", words(get("/tasks/t1"))
    )


def test_a_task_of_a_paused_service_says_so_and_one_of_another_does_not(get):
    for task_id, service in (("s1", "suno"), ("m1", "midjourney")):
        factories.register(task_id, grace=timedelta(0), now=utcnow() - timedelta(minutes=1), service=service)
    run_now()
    pauses.pause_account("upstream answered 403 disabled", utcnow(), "suno")
    assert "Due, but upstream has refused look-ups of suno since" in words(get("/tasks/s1"))
    assert "Due now: the next run asks." in words(get("/tasks/m1"))


class TestAskingNow:
    def test_the_button_makes_a_task_due(self, client, auth):
        factories.register("a/b")
        run_now()
        sign_in(client, API_KEY)
        page = client.get("/tasks/a/b").text
        (action,) = {url for url in links(page) if url.startswith("/tasks/a")} - {"/tasks/a/b?"}
        answer = client.post(action, data={"csrf_token": csrf_token(page)})
        assert (answer.status_code, answer.location) == (303, "/tasks/a/b")
        assert "Due now: the next run asks." in words(client.get(answer.location).text)

    def test_it_wants_a_form_of_ours(self, client, auth):
        factories.register("t1")
        before = Task.get_by_id("t1").next_lookup_at
        for data in ({}, {"csrf_token": "made-up"}):
            answer = client.post("/tasks/t1", data=data, headers=auth)
            assert answer.status_code == 400
            assert "reload the page and try again" in words(answer.text)
        assert Task.get_by_id("t1").next_lookup_at == before

    def test_a_task_that_is_not_there_is_a_404(self, client, auth):
        token = csrf_token(client.get("/sign-in").text)
        assert client.post("/tasks/unknown", data={"csrf_token": token}, headers=auth).status_code == 404


class TestDelivery:
    def test_it_shows_headers_and_body_as_they_came(self, get):
        body = '{"task_id":  "t1",\n "note": "käse <b>"}'.encode()
        factories.record(body, headers=[("User-Agent", "python-requests/2.32.3"), ("X-Odd", "a  b")])
        page = get("/deliveries/1")
        assert html.unescape(re.findall(r'<code id="body-1">(.*?)</code>', page, re.S)[0]) == body.decode()
        assert "User-Agent python-requests/2.32.3 X-Odd a b" in words(page)
        assert Delivery.get().digest.hex() in page

    def test_what_is_no_text_is_shown_as_escapes_and_told(self, get):
        factories.record(b'\xff\xfe{"task_id": "\xef\xbf\xbd"}')
        page = words(get("/deliveries/1"))
        assert '\\xff\\xfe{"task_id": "\ufffd"}' in page
        assert "2 places in it are not UTF-8" in page

    def test_of_one_that_was_too_large_it_says_what_is_there(self, make_client, auth):
        small = make_client(MAX_BODY_BYTES=5000)
        small.post(f"/callbacks/{CALLBACK_TOKEN}", data=b"x" * 6000)
        page = words(small.get("/deliveries/1", headers=auth).text)
        assert "Only its first 4.1 kB were kept." in page
        assert "larger than 5000 bytes" in page

    def test_an_empty_one_says_so(self, get):
        factories.record(b"")
        assert "It is empty." in words(get("/deliveries/1"))


class TestExports:
    def rows(self, client, auth, query=""):
        response = client.get(f"/tasks.csv{query}", headers=auth)
        assert response.mimetype == "text/csv"
        assert re.fullmatch(
            r'attachment; filename="backstop-tasks-\d{8}-\d{6}\.csv"', response.headers["Content-Disposition"]
        )
        return list(csv.DictReader(io.StringIO(response.text)))

    @pytest.mark.usefixtures("one_of_each")
    def test_csv_holds_the_filtered_list(self, client, auth):
        assert {row["id"] for row in self.rows(client, auth)} == {
            *("pending", "expired", "succeeded", "lost", "disputed")
        }
        (row,) = self.rows(client, auth, "?missed=true")
        assert (row["id"], row["settled_by"], row["prompt"]) == ("lost", "lookup", "a Harbour in fog")
        assert (row["confirmed"], row["image_url"], row["error_code"]) == ("true", "https://x/1.png", "")

    @pytest.mark.usefixtures("one_of_each")
    def test_json_lines_hold_what_the_api_shows(self, client, auth):
        response = client.get("/tasks.jsonl?q=lost", headers=auth)
        assert response.mimetype == "application/jsonl"
        (line,) = response.text.splitlines()
        assert json.loads(line) == client.get("/api/tasks?q=lost", headers=auth).json["items"][0]

    def test_they_hold_all_links_of_all_results(self, client, auth):
        songs = sample("services/suno_callback_success.json")
        finish("t1", {"data": songs["data"]}, service="suno")
        told = {song[name] for song in songs["data"] for name in ("image_url", "audio_url", "video_url")}
        (row,) = self.rows(client, auth)
        assert (set(row["links"].split(" ")), row["image_url"]) == (told, songs["data"][0]["image_url"])
        for text in (
            client.get("/tasks.jsonl", headers=auth).text,
            client.get("/api/tasks/t1", headers=auth).text,
        ):
            assert [url for url in told if url not in text] == []

    def test_all_of_them_are_there_however_many(self, client, auth, monkeypatch):
        monkeypatch.setattr("receiver.web.pages.tasks._MOST_EXPORTED_AT_ONCE", 7)
        factories.register(*(f"t{n:02}" for n in range(50)))
        assert len({row["id"] for row in self.rows(client, auth)}) == 50
        assert len(client.get("/tasks.jsonl", headers=auth).text.splitlines()) == 50

    def test_they_are_sent_page_by_page(self, client, auth, monkeypatch):
        monkeypatch.setattr("receiver.web.pages.tasks._MOST_EXPORTED_AT_ONCE", 1)
        factories.register("t1", "t2")
        response = client.get("/tasks.jsonl", headers=auth, buffered=False)
        lines = iter(response.response)
        assert b'"t2"' in next(lines)
        with database.connection_context():
            Task.delete().where(Task.id == "t1").execute()
        assert list(lines) == [b""]

    @pytest.mark.parametrize("begins", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
    def test_what_would_be_a_formula_is_text(self, client, auth, begins):
        factories.register("t1", ref=begins, type=begins)
        factories.record(factories.failure_body("t1", begins, begins))
        with database.connection_context():
            Task.update(prompt=begins, last_lookup_error=begins).execute()
        (row,) = self.rows(client, auth)
        for column in ("ref", "type", "error_code", "error_message", "prompt", "last_lookup_error"):
            assert row[column] == f"'{begins}", column
        assert row["deliveries"] == "1"

    @pytest.mark.parametrize(
        ("text", "sent"),
        [
            ("a;=1+1", "a;'=1+1"),
            ('a\n"; @SUM(A1)', "a\n\"; '@SUM(A1)"),
            ('a;"=1+1;"', 'a;"\'=1+1;"'),
            (" =1", " '=1"),
            ("\t=1", "'\t'=1"),
            ("a;b=c --no d", "a;b=c --no d"),
            ('x "-y" z', 'x "-y" z'),
        ],
    )
    def test_nor_does_one_begin_where_some_spreadsheets_end_a_cell(self, client, auth, text, sent):
        factories.register("t1", ref=text)
        assert self.rows(client, auth)[0]["ref"] == sent

    def test_a_text_of_nothing_but_white_space_takes_no_time(self, client, auth):
        factories.register("t1")
        with database.connection_context():
            Task.update(prompt="\n" * 100_000).execute()
        assert self.rows(client, auth)[0]["prompt"] == "'" + "\n" * 100_000

    def test_hostile_texts_are_one_cell(self, client, auth):
        text = '";\n,<script>=1'
        factories.register("t1", ref=text)
        with database.connection_context():
            Task.update(prompt=text).execute()
        (row,) = self.rows(client, auth)
        assert (row["ref"], row["prompt"]) == (text, text)

    @pytest.mark.parametrize("path", ["/tasks.csv", "/tasks.jsonl"])
    @pytest.mark.parametrize("query", ["status=broken", "stauts=failed", "status=failed&status=expired"])
    def test_a_bad_filter_is_a_400(self, client, auth, path, query):
        assert client.get(f"{path}?{query}", headers=auth).status_code == 400
        assert client.get(f"{path}?status=&type=", headers=auth).status_code == 200  # as a form sends it


def test_every_status_can_be_chosen(get):
    assert all(f'<option value="{status}">' in get("/tasks") for status in STATUSES)
