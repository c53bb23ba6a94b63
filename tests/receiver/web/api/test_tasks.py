import base64
import json
import re
from datetime import timedelta

import pytest

from receiver.clock import to_iso, utcnow
from receiver.ledger import store
from receiver.ledger.models import Forward, Task
from tests.conftest import API_KEY, CALLBACK_TOKEN
from tests.factories import (
    body,
    failed_item,
    failure_body,
    finished_item,
    item,
    look_up,
    progress_body,
    record,
    register,
)

NOW = utcnow()
TASK_FIELDS = [
    "id", "service", "type", "ref", "trace_id", "status", "progress", "settled_by", "confirmed", "disputed", "request", "response",
    "error", "registered_at", "submitted_at", "settled_at", "finished_at", "deliveries", "lookups", "next_lookup_at",
    "last_lookup_error", "acknowledged_at", "key",
]  # fmt: skip


def cursor(*parts: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


class TestKey:
    @pytest.mark.parametrize(
        "header",
        [None, "Bearer", "Bearer wrong", f"Bearer {API_KEY}x", f"Token {API_KEY}", "Basic !!", "Basic " + base64.b64encode(b"x").decode(),
         "Basic " + base64.b64encode(b"user:wrong").decode(), "Basic " + base64.b64encode(f"{API_KEY}:".encode()).decode(), "Bearer ü"],
    )  # fmt: skip
    def test_without_it_there_is_a_401_that_says_how(self, client, header):
        answer = client.get("/api/tasks", headers={"Authorization": header} if header else {})
        assert (answer.status_code, answer.json["error"]["code"]) == (401, "unauthorized")
        challenges = answer.headers.getlist("WWW-Authenticate")
        assert challenges == ['Basic realm="Backstop", charset="UTF-8"', 'Bearer realm="Backstop"']
        assert API_KEY not in answer.text

    @pytest.mark.parametrize("user", ["", "anyone", "ü"])
    def test_it_may_be_the_password_of_http_basic(self, client, user):
        credentials = base64.b64encode(f"{user}:{API_KEY}".encode()).decode()
        assert client.get("/api/tasks", headers={"Authorization": f"Basic {credentials}"}).status_code == 200

    def test_every_route_but_those_of_others_needs_it(self, client):
        for rule in client.application.url_map.iter_rules():
            if rule.endpoint.partition(".")[0] in {
                "static",
                "callbacks",
                "health",
                "openapi",
                "sign_in",
                "gateway",
                "lookups",
            }:
                continue
            path = re.sub("<.*>", "1", rule.rule)
            for method in rule.methods - {"OPTIONS", "HEAD"}:
                assert client.open(path, method=method).status_code == 401, (method, path)

    @pytest.mark.parametrize("site", ["cross-site", "same-site"])
    def test_another_sites_page_can_change_nothing(self, api, site):
        register("t1")
        answer = api.post("/api/tasks/t1/reconcile", headers={"Sec-Fetch-Site": site})
        assert answer.status_code == 403
        assert api.get("/api/tasks/t1", headers={"Sec-Fetch-Site": site}).status_code == 200


class TestRegister:
    def test_one(self, api):
        answer = api.post(
            "/api/tasks", json={"id": "t1", "ref": "order-7", "type": "imagine", "trace_id": "x"}
        )
        assert (answer.status_code, answer.json["created"]) == (201, 1)
        (shown,) = answer.json["items"]
        assert list(shown) == TASK_FIELDS
        assert (shown["status"], shown["ref"], shown["deliveries"], shown["lookups"]) == (
            "pending",
            "order-7",
            0,
            0,
        )
        assert shown["registered_at"].endswith("Z")

    def test_repeating_it_changes_nothing_but_fills_what_was_empty(self, api):
        first = api.post("/api/tasks", json={"id": "t1"}).json["items"][0]
        answer = api.post("/api/tasks", json={"id": "t1", "ref": "order-7"})
        assert (answer.status_code, answer.json["created"]) == (201, 0)
        assert answer.json["items"][0] == first | {"ref": "order-7"}

    def test_one_of_another_service(self, api, other_service):
        (shown,) = api.post("/api/tasks", json={"id": "t1", "service": other_service}).json["items"]
        assert shown["service"] == other_service
        answer = api.post("/api/tasks", json={"tasks": [{"id": "t0"}, {"id": "t1"}]})
        assert answer.status_code == 409
        assert answer.json["error"]["message"] == f"Task 't1' belongs to the service {other_service}."
        assert api.get("/api/tasks/t0").status_code == 404

    def test_up_to_a_thousand_in_the_order_given(self, api):
        ids = [f"task-{n}" for n in reversed(range(1000))]
        answer = api.post("/api/tasks", json={"tasks": [{"id": i} for i in ids]})
        assert answer.json["created"] == 1000
        assert [item["id"] for item in answer.json["items"]] == ids
        assert api.post("/api/tasks", json={"tasks": [{"id": i} for i in [*ids, "more"]]}).status_code == 400

    @pytest.mark.parametrize(
        ("bad", "complaint"),
        [
            ({}, "id is missing"), ({"id": None}, "id is missing"), ({"id": 5}, "id must be a string"), ({"id": ""}, "1-200"),
            ({"id": "x" * 201}, "1-200"), ({"id": "a\0"}, "NUL"), ({"id": "\ud800"}, "surrogate"), ({"id": "a", "ref": 5}, "ref must"),
            ({"id": "a", "reference": "x"}, "Unknown field 'reference'"), ([], "object"), (None, "object"), ("t1", "object"),
            ({"id": "a", "submitted_at": "yesterday"}, "submitted_at"), ({"id": "a", "submitted_at": -5}, "submitted_at"),
            ({"id": "a", "service": "nobody's"}, "service must be one of midjourney"), ({"id": "a", "service": 5}, "service"),
            ({"id": "a", "submitted_at": True}, "submitted_at"), ({"id": "a", "submitted_at": []}, "submitted_at"),
        ],
    )  # fmt: skip
    def test_a_bad_item_is_named_and_none_is_registered(self, api, bad, complaint):
        answer = api.post("/api/tasks", json={"tasks": [{"id": "good"}, bad]})
        assert answer.status_code == 400
        assert answer.json["error"]["message"].startswith("tasks[1]: ")
        assert complaint in answer.json["error"]["message"]
        assert Task.select().count() == 0

    def test_an_empty_body_is_told_as_such(self, client, auth):
        answer = client.post("/api/tasks", data=b"", headers=auth)
        assert answer.status_code == 400
        assert answer.json["error"]["message"] == 'The body is empty. Send JSON like {"id": "..."}.'

    @pytest.mark.parametrize(
        "raw", [b"", b"{", b"\xff", b"[1]", b'"t1"', b'{"tasks": {}}', b'{"tasks": null}', b"[" * 9999]
    )
    def test_a_body_that_is_no_registration_is_a_400(self, api, raw):
        assert api.post("/api/tasks", data=raw).status_code == 400

    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
            ("2026-01-31T14:00:00+02:00", "2026-01-31T12:00:00Z"),
            ("2026-01-31 12:00", "2026-01-31T12:00:00Z"),
            (1769860800, "2026-01-31T12:00:00Z"),
            (1769860800.25, "2026-01-31T12:00:00.250000Z"),
        ],
    )
    def test_when_it_was_submitted_is_iso_8601_or_unix_seconds(self, api, given, shown):
        answer = api.post("/api/tasks", json={"id": "t1", "submitted_at": given})
        assert answer.json["items"][0]["submitted_at"] == shown

    def test_with_a_url_for_its_result(self, api):
        url = "https://user:pass@app.example/hooks?order=7"
        (shown,) = api.post("/api/tasks", json={"id": "t1", "callback_url": url}).json["items"]
        assert "callback_url" not in shown  # it may hold secrets
        assert Task.get().callback_url == url
        assert api.get("/api/tasks/t1").json["callback_url"] == "https://***@app.example/hooks?order=7"

    @pytest.mark.parametrize(("when", "forwards"), [("confirmed", 0), ("settled", 1)])
    def test_a_url_that_comes_after_the_result_is_told_by_the_setting(
        self, make_client, auth, when, forwards
    ):
        client = make_client(FORWARD_WHEN=when)
        record(body("t1"), confirm=True)
        client.post("/api/tasks", json={"id": "t1", "callback_url": "https://app.example/"}, headers=auth)
        assert Forward.select().count() == forwards

    @pytest.mark.parametrize(
        ("url", "complaint"),
        [
            (5, "printable ASCII"), ("", "printable ASCII"), ("https://app.example/ x", "without spaces"), ("https://ä.example/", "ASCII"),
            ("https://app.example/" + "x" * 1981, "at most 2000"), ("app.example", "http or https"), ("ftp://app.example/", "http or https"),
            ("https:///x", "http or https"), ("https://app.example:99999/", "http or https"), ("https://[::1/", "http or https"),
            ("http://localhost/callbacks/other-token", "own"), ("http://LOCALHOST:80//callbacks/x/ref", "own"),
            (f"https://elsewhere.example/callbacks/{CALLBACK_TOKEN}", "own"),
            (f"https://elsewhere.example/proxy/c%61llbacks/{CALLBACK_TOKEN}/order-7", "own"),
            ("https://here.example/callbacks/other-token", "own"),
        ],
    )  # fmt: skip
    def test_a_bad_url_for_its_result_is_named(self, make_client, auth, url, complaint):
        client = make_client(PUBLIC_URL="https://here.example")
        answer = client.post("/api/tasks", json={"id": "t1", "callback_url": url}, headers=auth)
        assert (answer.status_code, Task.select().count()) == (400, 0)
        assert complaint in answer.json["error"]["message"]
        assert CALLBACK_TOKEN not in answer.text

    @pytest.mark.parametrize(("when", "status"), [("confirmed", 400), ("settled", 201)])
    def test_a_url_that_would_never_be_told_is_refused(self, make_client, auth, when, status):
        client = make_client(CONFIRM_CALLBACKS="false", FORWARD_WHEN=when)
        answer = client.post(
            "/api/tasks", json={"id": "t1", "callback_url": "https://a.example"}, headers=auth
        )
        assert (answer.status_code, Task.select().count()) == (status, status == 201)

    @pytest.mark.parametrize(
        "url", ["https://app.example/callbacks/theirs", "https://here.example/hooks", "http://a.example:8080"]
    )
    def test_a_url_elsewhere_is_taken(self, make_client, auth, url):
        client = make_client(PUBLIC_URL="https://here.example")
        answer = client.post("/api/tasks", json={"id": "t1", "callback_url": url}, headers=auth)
        assert (answer.status_code, Task.get().callback_url) == (201, url)

    def test_a_body_over_the_limit_is_a_413(self, make_client, auth):
        answer = make_client(MAX_BODY_BYTES=100).post("/api/tasks", data=b" " * 101, headers=auth)
        assert (answer.status_code, answer.json["error"]["code"]) == (413, "request_entity_too_large")


class TestList:
    def ids(self, api, query=""):
        answer = api.get(f"/api/tasks{query}")
        assert answer.status_code == 200, answer.json
        return [item["id"] for item in answer.json["items"]]

    def test_it_pages_through_all_of_them_newest_first(self, api):
        for age in range(25):
            register(f"a{age:02}", f"b{age:02}", now=NOW - timedelta(seconds=age))
        found, query = [], "?limit=7"
        while query:
            page = api.get(f"/api/tasks{query}").json
            found += [item["id"] for item in page["items"]]
            query = page["next"] and f"?limit=7&before={page['next']}"
        assert found == [f"{letter}{age:02}" for age in range(25) for letter in "ba"]

    def test_a_new_task_does_not_shift_the_pages(self, api):
        register("a", "b", now=NOW)
        cursor = api.get("/api/tasks?limit=1").json["next"]
        register("new", now=NOW + timedelta(seconds=1))
        assert self.ids(api, f"?limit=1&before={cursor}") == ["a"]

    def test_it_filters_by_service(self, api, other_service):
        register("ours", now=NOW)
        register("theirs", now=NOW, service=other_service)
        assert self.ids(api, "?service=midjourney") == ["ours"]
        assert self.ids(api, f"?service={other_service}&status=pending") == ["theirs"]

    def test_it_filters(self, api):
        register("waiting", type="imagine", ref="order-7", now=NOW)
        record(body("came"), NOW, confirm=True)
        record(body("forged"), NOW, confirm=True)
        register("lost", type="edits", now=NOW, grace=timedelta(0))
        look_up(
            [
                finished_item("came"),
                failed_item("forged"),
                finished_item("lost", request={"prompt": "A Red fox_"}),
            ],
            NOW,
        )
        assert self.ids(api, "?status=pending") == ["waiting"]
        assert self.ids(api, "?status=failed") == ["forged"]
        assert self.ids(api, "?type=imagine&settled_by=lookup") == ["forged"]
        assert self.ids(api, "?settled_by=callback") == ["came"]
        assert self.ids(api, "?disputed=true") == ["forged"]
        assert self.ids(api, "?disputed=false") == ["waiting", "lost", "came"]
        assert self.ids(api, "?q=order-7") == ["waiting"]
        assert self.ids(api, "?q=lost") == ["lost"]
        assert self.ids(api, "?q=red fox_") == ["lost"]
        assert self.ids(api, "?q=red%25fox") == []
        assert self.ids(api, "?status=expired") == []

    @pytest.mark.parametrize(
        "query",
        ["status=done", "settled_by=me", "settled_by=submit", "disputed=1", "limit=0", "limit=201", "limit=x", "limit=-1", "limit=²", "before=x",
         "before=%FF", "before=bnVsbA==", "before=WzEsMl0=", "limit=0000000010000", "limit=" + "1" * 5000, "before=" + cursor("2026-01-01T00:00:00Z", "a\0"),
            "before=" + cursor("2026-01-01T00:00:00Z", "\ud800"), "before=" + cursor("0001-01-01T00:00:00+14:00", "a"),
            "before=" + base64.urlsafe_b64encode(b"[" * 5000).decode(), "stauts=failed", "status=failed&status=expired", "service=nobody's", "q=%00", "type=%00"],
    )  # fmt: skip
    def test_a_bad_parameter_is_a_400_that_names_it(self, api, query):
        answer = api.get(f"/api/tasks?{query}")
        assert answer.status_code == 400
        assert answer.json["error"]["message"]

    def test_the_highest_limit_works(self, api):
        assert self.ids(api, "?limit=200") == []


class TestShow:
    @pytest.mark.parametrize("query", ["wiat=25", "wait=1&wait=2"])
    def test_a_misspelt_or_repeated_parameter_is_a_400(self, api, query):
        register("t1")
        assert api.get(f"/api/tasks/t1?{query}").status_code == 400

    def test_it_tells_what_happened_in_order(self, api):
        register(
            "t1", now=NOW - timedelta(seconds=9), submitted_at=NOW - timedelta(seconds=10), grace=timedelta(0)
        )
        record(progress_body("t1"), NOW - timedelta(seconds=5))
        record(failure_body("t1"), NOW - timedelta(seconds=4), confirm=True)
        record(failure_body("t1"), NOW - timedelta(seconds=3), confirm=True)
        look_up([finished_item("t1")], NOW)
        shown = api.get("/api/tasks/t1").json
        assert set(shown) == {*TASK_FIELDS, "callback_url", "forwards", "timeline"}
        assert [event["event"] for event in shown["timeline"]] == [
            "submitted", "registered", "delivery", "delivery", "delivery", "lookup", "settled", "disputed",
        ]  # fmt: skip
        assert [row["duplicate"] for row in shown["deliveries"]] == [True, False, False]
        assert [row["verdict"] for row in shown["lookups"]] == ["succeeded"]
        assert (shown["status"], shown["settled_by"], shown["disputed"]) == ("succeeded", "lookup", True)

    def test_a_dispute_tells_both_versions(self, api):
        record(failure_body("t1", "forged"), NOW - timedelta(seconds=9), confirm=True)
        look_up([finished_item("t1")], NOW - timedelta(seconds=5))
        record(failure_body("t1", "forged"), NOW, confirm=True)
        (event,) = [e for e in api.get("/api/tasks/t1").json["timeline"] if e["event"] == "disputed"]
        assert event["at"] == to_iso(NOW - timedelta(seconds=5))
        assert event["versions"]["callback"]["status"] == "failed"
        assert event["versions"]["callback"]["response"]["error"]["code"] == "forged"
        assert event["versions"]["upstream"]["status"] == "succeeded"
        assert event["versions"]["upstream"]["response"]["image_url"] == "https://x/1.png"

    def test_a_claim_in_doubt_is_a_dispute_with_an_unfinished_version(self, api):
        record(body("t1"), NOW - timedelta(hours=1), confirm=True)
        look_up([item("t1", {"progress": 20})], NOW)
        (event,) = [e for e in api.get("/api/tasks/t1").json["timeline"] if e["event"] == "disputed"]
        assert event["at"] == to_iso(NOW)
        assert event["versions"]["callback"]["status"] == "succeeded"
        assert event["versions"]["upstream"] == {"status": "pending", "response": {"progress": 20}}

    def test_it_shows_the_newest_100_deliveries_and_counts_all(self, api):
        for n in range(103):
            record(progress_body("t1", progress=n / 2))
        shown = api.get("/api/tasks/t1").json
        assert len(shown["deliveries"]) == 100
        assert api.get("/api/tasks").json["items"][0]["deliveries"] == 103

    @pytest.mark.parametrize(
        "task_id", ["a/b", "a//b", "/a", "ü b", "a?b#c%d", "<script>", "..", "a\nb", "a/reconcile"]
    )
    def test_ids_are_other_peoples_names(self, api, task_id):
        from urllib.parse import quote

        register(task_id)
        assert api.get(f"/api/tasks/{quote(task_id, safe='')}").json["id"] == task_id
        assert api.post(f"/api/tasks/{quote(task_id, safe='')}/reconcile").json["id"] == task_id

    @pytest.mark.parametrize("task_id", ["unknown", "%00", "%FF", "x" * 300])
    def test_an_unknown_task_is_a_404(self, api, task_id):
        for answer in (api.get(f"/api/tasks/{task_id}"), api.post(f"/api/tasks/{task_id}/reconcile")):
            assert (answer.status_code, answer.json["error"]["code"]) == (404, "not_found")

    def test_it_tells_when_upstream_changed_its_final_answer(self, api):
        register("t1", now=NOW - timedelta(minutes=9), grace=timedelta(0))
        for minutes, answer in ((8, finished_item("t1")), (6, failed_item("t1")), (4, failed_item("t1"))):
            look_up([answer], NOW - timedelta(minutes=minutes))
            store.ask_now("t1", NOW - timedelta(minutes=minutes - 1))
        shown = api.get("/api/tasks/t1").json
        (event,) = [e for e in shown["timeline"] if e["event"] == "changed"]
        assert event["at"] == to_iso(NOW - timedelta(minutes=6))
        assert event["detail"] == (
            "upstream changed its final answer from succeeded to failed: succeeded counts"
        )
        assert shown["status"] == "succeeded"

    def test_asking_now_makes_it_due(self, api):
        record(body("t1"))
        answer = api.post("/api/tasks/t1/reconcile")
        assert answer.status_code == 202
        assert answer.json["next_lookup_at"] == api.get("/api/tasks/t1").json["next_lookup_at"]
        assert look_up([failed_item("t1")]) == 1


class TestAcknowledge:
    @pytest.fixture
    def disputed(self, client):
        """Three disputes, the oldest an hour old, and a task without one."""
        for n in range(3):
            moment = NOW - timedelta(minutes=20 * (n + 1))
            record(body(f"t{n}"), moment, confirm=True)
            look_up([failed_item(f"t{n}")], moment)
        record(body("fine"), NOW - timedelta(minutes=5), confirm=True)
        look_up([finished_item("fine")], NOW - timedelta(minutes=5))

    @pytest.mark.usefixtures("disputed")
    def test_a_dispute_is_acknowledged_once_and_stays_one(self, api):
        first = api.post("/api/tasks/t0/acknowledge")
        assert first.status_code == 200
        assert first.json["acknowledged_at"]
        assert first.json["disputed"] is True
        again = api.post("/api/tasks/t0/acknowledge")
        assert (again.status_code, again.json) == (200, first.json)
        shown = api.get("/api/tasks/t0").json
        (event,) = [e for e in shown["timeline"] if e["event"] == "acknowledged"]
        assert event == {
            "at": first.json["acknowledged_at"],
            "event": "acknowledged",
            "detail": "a person acknowledged the dispute",
        }

    @pytest.mark.usefixtures("disputed")
    def test_only_a_dispute_can_be_acknowledged(self, api, client):
        answer = api.post("/api/tasks/fine/acknowledge")
        assert (answer.status_code, answer.json["error"]["code"]) == (409, "conflict")
        assert api.get("/api/tasks/fine").json["acknowledged_at"] is None
        for unknown in ("unknown", "a%00b"):
            assert api.post(f"/api/tasks/{unknown}/acknowledge").status_code == 404

    @pytest.mark.usefixtures("disputed")
    def test_lists_tell_them_apart(self, api):
        api.post("/api/tasks/t1/acknowledge")

        def ids(query):
            return [each["id"] for each in api.get(f"/api/tasks?{query}").json["items"]]

        assert ids("disputed=true") == ["t0", "t1", "t2"]
        assert ids("acknowledged=true") == ids("disputed=true&acknowledged=true") == ["t1"]
        assert ids("acknowledged=false") == ids("disputed=true&acknowledged=false") == ["t0", "t2"]
        assert ids("disputed=false&acknowledged=true") == []
        assert api.get("/api/tasks?acknowledged=maybe").status_code == 400

    @pytest.mark.usefixtures("disputed")
    def test_all_that_a_filter_holds_are_acknowledged_at_once(self, api, monkeypatch):
        since = to_iso(NOW - timedelta(minutes=50))
        answer = api.post("/api/tasks/acknowledge", query_string={"since": since})
        assert (answer.status_code, answer.json) == (200, {"acknowledged": 2, "more": False})
        assert [each["id"] for each in api.get("/api/tasks?acknowledged=false").json["items"]] == ["t2"]
        assert api.post("/api/tasks/acknowledge").json == {"acknowledged": 1, "more": False}
        assert api.post("/api/tasks/acknowledge?disputed=maybe").status_code == 400
        assert api.post("/api/tasks/acknowledge?limit=5").status_code == 400

    @pytest.mark.usefixtures("disputed")
    @pytest.mark.parametrize(
        "sent",
        [{"json": {"service": "suno"}}, {"data": b"[1]"}],
    )
    def test_a_filter_in_the_body_acknowledges_nothing(self, api, sent):
        answer = api.post("/api/tasks/acknowledge", **sent)
        assert (answer.status_code, "Put the filter into the URL, as in" in answer.text) == (400, True)
        assert len(api.get("/api/tasks?acknowledged=false").json["items"]) == 3

    @pytest.mark.usefixtures("disputed")
    def test_so_many_at_once(self, api, monkeypatch):
        monkeypatch.setattr("receiver.web.task_actions.MOST_ACKNOWLEDGED", 2)
        assert api.post("/api/tasks/acknowledge").json == {"acknowledged": 2, "more": True}
        assert api.post("/api/tasks/acknowledge").json == {"acknowledged": 1, "more": False}


def test_a_registration_that_would_show_a_token_is_refused(api):
    answer = api.post("/api/tasks", json={"id": "/callbacks/secret"})
    assert (answer.status_code, "secret" in answer.text.replace("a secret", "")) == (400, False)


class TestElsewhere:
    """A browser adds the Basic password by itself; over plain HTTP it sends the Origin, but no Sec-Fetch-Site."""

    @pytest.mark.parametrize(
        ("origin", "status"),
        [
            *(("http://localhost", 201), (None, 201)),
            *(("http://evil.example", 403), ("null", 403), ("https://[", 403)),
        ],
    )
    def test_another_sites_page_may_not_change_anything(self, client, origin, status):
        basic = base64.b64encode(f"user:{API_KEY}".encode()).decode()
        headers = {"Authorization": f"Basic {basic}"} | ({"Origin": origin} if origin else {})
        assert client.post("/api/tasks", json={"id": "t1"}, headers=headers).status_code == status

    def test_a_page_at_the_public_address_may(self, make_client):
        client = make_client(PUBLIC_URL="https://hooks.example.com")
        headers = {"Authorization": f"Bearer {API_KEY}", "Origin": "https://hooks.example.com"}
        assert client.post("/api/tasks", json={"id": "t1"}, headers=headers).status_code == 201


def test_a_key_that_holds_an_equals_sign_is_taken_as_bearer_and_as_basic(make_client):
    key = "key=with=equals-signs=="
    client = make_client(API_KEY=key)
    basic = base64.b64encode(f"user:{key}".encode()).decode()
    for header in (f"Bearer {key}", f"bearer {key}", f"Basic {basic}"):
        assert client.get("/api/tasks", headers={"Authorization": header}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/tasks", "/api/tasks", "/nowhere"])
def test_a_host_that_is_none_is_a_bad_request_and_no_traceback(client, caplog, path):
    answer = client.get(path, headers={"Host": f"{'a' * 64}.com"})
    assert answer.status_code == 400
    assert len(caplog.text) < 500
