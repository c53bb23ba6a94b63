"""Look-ups through the gateway: what is answered from the ledger, what upstream is asked, in what form."""

import threading
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from receiver.clock import utcnow
from receiver.ledger import pauses, store
from receiver.ledger.models import Lookup, Task
from receiver.web.gateway import unknown
from tests.factories import body, failed_item, finished_item, item, look_up, record, register, sample, task
from tests.processes import free_port

OURS = "https://us.example/callbacks/callback-token-of-the-tests/order-1"
SEED = sample("retrieve_seed.json")
PATH = "/midjourney/tasks"
EARLIER = timedelta(minutes=5)
PARTIAL = {"success": True, "progress": 35, "image_url": "https://x/temporary.webp", "task_id": "t1"}
RUNNING = {
    "null": {"response": None},
    "missing": {},
    "empty": {"response": {}},
    "success without a result": {"response": {"success": True, "task_id": "t1"}},
    "partial": {"response": PARTIAL},
}
running = pytest.mark.parametrize("fields", RUNNING.values(), ids=RUNNING)


@pytest.fixture
def ask(gateway, auth):
    """Ask the gateway about Midjourney tasks, and return its answer."""
    return lambda **asked: gateway.post(PATH, json=asked, headers=auth)


@pytest.fixture
def cut_off(make_client, auth):
    """Ask a gateway whose upstream is away."""
    client = make_client(ACEDATACLOUD_API_BASE_URL=f"http://127.0.0.1:{free_port()}")
    return lambda **asked: client.post(PATH, json=asked, headers=auth)


def says(*items: Any, **answer: Any):
    """Return the script of an upstream that knows these items and no others."""
    known = {one["id"]: one for one in items}

    def script(request, connection) -> None:
        asked = request.json
        if asked.get("action") != "retrieve_batch":
            connection.send_json(known.get(asked.get("id"), {}))
            return
        found = [known[name] for name in asked.get("ids", known) if name in known]
        connection.send_json({"items": found, "count": len(found), **answer})

    return script


def settle(*items: dict[str, Any], **fields: Any) -> None:
    """Let upstream's look-ups have settled these tasks."""
    register(*(one["id"] for one in items), now=utcnow() - EARLIER, **fields)
    look_up(items)


def open_task(task_id: str = "t1", **fields: Any) -> None:
    register(task_id, now=utcnow() - EARLIER, **fields)


class TestSettled:
    def test_it_comes_back_field_by_field(self, ask, upstream):
        settle(SEED)
        answer = ask(action="retrieve", id=SEED["id"])
        assert answer.status_code == 200
        assert {name: answer.json[name] for name in SEED} == SEED
        # The vendor's command line waits for these beside the response.
        assert {name: answer.json[name] for name in answer.json.keys() - SEED.keys()} == {
            "success": True,
            "image_url": SEED["response"]["image_url"],
        }
        assert upstream.received == []

    def test_a_failure_says_so_beside_the_response_too(self, ask):
        failed = failed_item("t1")
        settle(failed)
        answer = ask(id="t1").json
        assert answer["response"] == failed["response"]
        assert answer["error"] == failed["response"]["error"]
        assert answer["success"] is False

    def test_200_polls_cost_upstream_nothing(self, ask, upstream):
        settle(finished_item("t1"))
        answers = [ask(action="retrieve", id="t1") for _ in range(200)]
        assert {answer.status_code for answer in answers} == {200}
        assert all(answer.json == answers[0].json for answer in answers)
        assert upstream.received == []

    def test_it_is_answered_while_upstream_is_away(self, cut_off):
        settle(finished_item("t1"), finished_item("t2"))
        assert cut_off(id="t1").json["response"]["success"] is True
        batch = cut_off(action="retrieve_batch", ids=["t1", "t2", "unknown"])
        assert (batch.status_code, [one["id"] for one in batch.json["items"]]) == (200, ["t1", "t2"])

    @pytest.mark.parametrize(
        "asked",
        [
            {"id": "t1"},
            {"action": "retrieve", "task_id": "t1"},
            {"action": "retrieve", "trace_id": "trace-1"},
            {"action": "retrieve", "trace_id": "trace-1", "id": "other"},
        ],
    )
    def test_it_is_found_by_each_of_its_names(self, ask, upstream, asked):
        settle(finished_item("t1", trace_id="trace-1"), finished_item("other"))
        assert ask(**asked).json["id"] == "t1"
        assert upstream.received == []

    def test_our_callback_url_is_taken_out(self, ask):
        settle(finished_item("t1", request={"prompt": "a fox", "callback_url": OURS}))
        assert ask(id="t1").json["request"] == {"prompt": "a fox"}

    def test_the_callers_own_callback_url_is_given_back(self, ask):
        theirs = "https://app.example/hook"
        settle(finished_item("t1", request={"prompt": "a", "callback_url": OURS}), callback_url=theirs)
        assert ask(id="t1").json["request"] == {"prompt": "a", "callback_url": theirs}

    def test_an_item_is_composed_where_none_was_kept(self, ask):
        settle(finished_item("t1", created_at=1720364600.5, trace_id="x"))
        Task.update(lookup_envelope=None).execute()
        answer = ask(id="t1").json
        assert (answer["id"], answer["type"], answer["trace_id"]) == ("t1", "imagine", "x")
        assert (answer["created_at"], answer["finished_at"]) == (1720364600.5, 1720364637.4)
        assert answer["response"]["success"] is True


class TestRunning:
    @running
    def test_what_the_ledger_knows_has_an_empty_response(self, ask, upstream, fields):
        open_task()
        upstream.answer = says({"id": "t1", "type": "imagine", "request": {"callback_url": OURS}} | fields)
        for _ in range(2):  # asked, then from the ledger
            answer = ask(id="t1").json
            assert answer["response"] == {}
            assert answer["request"] == {}
            assert "image_url" not in answer
        assert len(upstream.received) == 1

    @running
    def test_so_has_what_only_upstream_knows(self, ask, upstream, fields):
        upstream.answer = says({"id": "t1", "request": {"callback_url": OURS}} | fields)
        assert ask(id="t1").json == {"id": "t1", "request": {}, "response": {}}
        batch = ask(action="retrieve_batch", ids=["t1"]).json
        assert batch == {"items": [{"id": "t1", "request": {}, "response": {}}], "count": 1}

    def test_an_expired_task_has_it_too_and_upstream_is_asked_again(self, ask, upstream):
        open_task()
        Task.update(status="expired", gave_up_at=utcnow() - EARLIER, next_lookup_at=None).execute()
        upstream.answer = says(item("t1"))
        assert ask(id="t1").json["response"] == {}
        assert len(upstream.received) == 1


class TestOpen:
    def test_upstream_is_asked_and_the_answer_goes_through_the_ledger(self, ask, upstream):
        open_task()
        upstream.answer = says(finished_item("t1"))
        assert ask(id="t1").json["response"]["success"] is True
        known = task("t1")
        assert (known.status, known.settled_by, known.lookup_count) == ("succeeded", "lookup", 1)
        assert (known.next_lookup_at, known.leased_until) == (None, None)
        assert Lookup.get().run is None
        ask(id="t1")
        assert len(upstream.received) == 1

    def test_what_was_asked_a_moment_ago_is_known(self, ask, upstream):
        open_task()
        upstream.answer = says(item("t1"))
        for _ in range(5):
            ask(id="t1")
        assert len(upstream.received) == 1
        Task.update(looked_at=utcnow() - timedelta(seconds=6)).execute()
        ask(id="t1")
        assert len(upstream.received) == 2

    def test_a_task_that_was_just_submitted_is_not_asked_about(self, ask, upstream):
        register("t1")
        assert ask(id="t1").json["response"] == {}
        assert upstream.received == []

    def test_a_callbacks_word_is_confirmed_first(self, ask, upstream):
        open_task()
        record(body("t1"), now=utcnow() - EARLIER, confirm=True)
        upstream.answer = says(finished_item("t1", extra=1))
        assert ask(id="t1").json["extra"] == 1
        assert task("t1").confirmed is True

    def test_many_callers_share_one_question(self, gateway, auth, upstream):
        for n in range(20):
            open_task(f"t{n}")
        arrived, go_on = threading.Event(), threading.Event()
        tell = says(*(finished_item(f"t{n}") for n in range(20)))

        def slowly(request, connection) -> None:
            arrived.set()
            go_on.wait(60)
            tell(request, connection)

        upstream.answer = slowly
        answers: list[Any] = []

        def poll(task_id: str) -> None:
            client = gateway.application.test_client()
            answers.append(client.post(PATH, json={"id": task_id}, headers=auth).json)

        def start(*task_ids: str) -> list[threading.Thread]:
            threads = [threading.Thread(target=poll, args=(task_id,)) for task_id in task_ids]
            [thread.start() for thread in threads]
            return threads

        polls = start("t0")
        assert arrived.wait(60)
        asker = gateway.application.extensions["backstop_asker"]
        asker._apart = 0.0
        polls += start(*(f"t{n}" for n in range(1, 20)))
        until = time.monotonic() + 60
        while len(asker._wishes) < 19 and time.monotonic() < until:
            time.sleep(0.01)
        asker._next_at = 0.0
        go_on.set()
        [thread.join(60) for thread in polls]
        assert len(answers) == 20
        assert all(answer["response"]["success"] for answer in answers)
        assert [len(request.json["ids"]) for request in upstream.received] == [1, 19]

    def test_it_keeps_within_its_share_of_the_rate(self, make_client, auth, upstream):
        client = make_client(
            ACEDATACLOUD_API_BASE_URL=upstream.url, RECONCILE_MAX_RATE="5", WEB_CONCURRENCY="1"
        )
        upstream.answer = says()
        open_task("t1"), open_task("t2")
        began = time.monotonic()
        client.post(PATH, json={"id": "t1"}, headers=auth)
        client.post(PATH, json={"id": "t2"}, headers=auth)
        assert time.monotonic() - began >= 0.4
        assert len(upstream.received) == 2

    def test_while_the_reconciler_asks_nobody_else_does(self, ask, upstream):
        open_task()
        now = utcnow()
        claimed = store.claim(now, limit=1, lease=timedelta(minutes=2))
        assert claimed.ids == ["t1"]
        assert ask(id="t1").json["response"] == {}
        assert upstream.received == []
        assert task("t1").leased_until == claimed.leased_until

    @pytest.mark.parametrize("account", [True, False])
    def test_while_asking_is_paused_the_ledger_answers(self, ask, upstream, account):
        open_task()
        pauses.stop_asking("because", utcnow(), account=account, retry_after=timedelta(minutes=1))
        assert ask(id="t1").json["response"] == {}
        assert upstream.received == []

    def test_while_upstream_is_away_the_ledger_answers(self, cut_off):
        open_task()
        record(body("t1"), now=utcnow() - EARLIER, confirm=True)
        assert cut_off(id="t1").json["response"]["success"] is True
        known = task("t1")
        assert "no answer from upstream" in known.last_lookup_error
        assert known.leased_until is None

    def test_an_error_of_the_account_pauses_asking(self, ask, upstream):
        open_task()
        error = {"success": False, "error": {"code": "invalid_token", "message": "no"}}
        upstream.answer = lambda _, connection: connection.send_json(error, 401)
        assert ask(id="t1").json["response"] == {}
        assert pauses.current_pause(utcnow()).account
        assert task("t1").leased_until is None

    def test_an_error_of_the_service_pauses_that_service_alone(self, ask, upstream):
        open_task()
        error = {"success": False, "error": {"code": "disabled", "message": "no"}}
        upstream.answer = lambda _, connection: connection.send_json(error, 400)
        for _ in range(2):
            assert ask(id="t1").json["response"] == {}
        assert len(upstream.received) == 1
        assert pauses.current_pause(utcnow(), "midjourney") is not None
        assert pauses.current_pause(utcnow(), "suno") is None
        assert task("t1").leased_until is None

    def test_an_id_that_spoils_the_question_is_left_to_the_reconciler(self, ask, upstream):
        open_task("t1"), open_task("t2")
        error = {"error": {"code": "bad_request", "message": "bad id"}}
        upstream.answer = lambda _, connection: connection.send_json(error, 400)
        batch = ask(action="retrieve_batch", ids=["t1", "t2"])
        assert [one["response"] for one in batch.json["items"]] == [{}, {}]
        assert {(one.leased_until, one.refused_at, one.lookup_count) for one in Task.select()} == {
            (None, None, 0)
        }
        assert store.is_anything_due(utcnow())


class TestUnknown:
    def test_upstream_is_asked_and_no_row_is_made(self, ask, upstream):
        found = finished_item("theirs", request={"callback_url": "https://app.example/hook"})
        upstream.answer = says(found)
        answer = ask(action="retrieve", id="theirs", extra=1).json
        assert {name: answer[name] for name in found} == found
        assert upstream.received[0].json == {"action": "retrieve", "id": "theirs", "extra": 1}
        assert Task.select().count() == 0

    @pytest.mark.parametrize(
        ("answer", "status"),
        [
            ({}, 200),
            ({"error": {"code": "not_found", "message": "no"}}, 404),
            ({"error": {"code": "no_task", "message": "no"}}, 404),
        ],
    )
    def test_what_nobody_knows_is_an_empty_object(self, ask, upstream, answer, status):
        upstream.answer = lambda _, connection: connection.send_json(answer, status)
        told = ask(id="nobody-knows")
        assert (told.status_code, told.json) == (200, {})
        batch = ask(action="retrieve_batch", ids=["nobody-knows"])
        assert (batch.status_code, batch.json) == (200, {"items": [], "count": 0})

    def test_a_callback_token_of_ours_is_never_shown(self, ask, upstream):
        upstream.answer = says(finished_item("t1", request={"callback_url": OURS}, hook=OURS))
        told = ask(id="t1").get_data(as_text=True)
        told += ask(action="retrieve_batch").get_data(as_text=True)
        assert "callback-token-of-the-tests" not in told

    def test_without_upstream_the_error_has_upstreams_form(self, cut_off):
        answer = cut_off(id="nobody-knows")
        assert (answer.status_code, answer.json["error"]["code"]) == (504, "timeout")
        assert answer.json["success"] is False


class TestErrors:
    @pytest.mark.parametrize(
        ("answer", "status", "code"),
        [
            ({"error": "something broke"}, 500, "api_error"),
            ({"error": "something broke"}, 200, "api_error"),
            ({"error": None}, 500, "api_error"),
            ({}, 429, "too_many_requests"),
            ([], 200, "api_error"),
            ({"success": False, "error": {"code": "used_up", "message": "no"}}, 403, "used_up"),
        ],
    )
    def test_an_error_is_always_an_object(self, ask, upstream, answer, status, code):
        upstream.answer = lambda _, connection: connection.send_json(answer, status, Retry_After="3")
        for asked in ({"id": "x"}, {"action": "retrieve_batch", "ids": ["x"]}, {"action": "retrieve_batch"}):
            told = ask(**asked)
            assert told.json["error"]["code"] == code
            assert told.json["error"]["message"]
            assert told.headers["Retry-After"] == "3"

    def test_one_that_is_no_json_is_an_object_too(self, ask, upstream):
        upstream.answer = lambda _, connection: connection.send_bytes(b"<html>Bad Gateway", 502)
        told = ask(id="x")
        assert (told.status_code, told.json["error"]["code"]) == (502, "api_error")

    def test_an_error_of_null_beside_a_batch_is_left_out(self, ask, upstream):
        upstream.answer = says(finished_item("t1"), error=None)
        for asked in ({"ids": ["t1"]}, {}):
            assert "error" not in ask(action="retrieve_batch", **asked).json

    def test_a_bare_string_in_a_response_is_an_object(self, ask, upstream):
        failed = {"id": "t1", "finished_at": 1700000000, "response": {"success": False, "error": "no"}}
        upstream.answer = says(failed)
        assert ask(id="t1").json["response"]["error"] == {"code": "api_error", "message": "no"}
        settle(failed)
        answer = ask(id="t1").json
        assert answer["response"]["error"] == answer["error"] == {"code": "api_error", "message": "no"}


class TestBatch:
    def test_the_answer_holds_the_ledgers_tasks_and_upstreams(self, ask, upstream):
        settle(finished_item("ours"))
        open_task("open")
        upstream.answer = says(item("theirs"), finished_item("open"))
        answer = ask(action="retrieve_batch", ids=["theirs", "nobody-knows", "open", "ours", "ours"]).json
        assert [one["id"] for one in answer["items"]] == ["theirs", "open", "ours"]
        assert answer["count"] == 3
        asked = Counter(tuple(sorted(request.json["ids"])) for request in upstream.received)
        assert asked == {("open",): 1, ("nobody-knows", "theirs"): 1}

    def test_it_is_paged_by_12(self, ask):
        settle(*(finished_item(f"t{n:02}") for n in range(30)))
        ids = [f"t{n:02}" for n in range(30)]

        def page(**asked: int) -> list[str]:
            answer = ask(action="retrieve_batch", ids=ids, **asked).json
            assert answer["count"] == 30
            return [one["id"] for one in answer["items"]]

        assert page() == ids[:12]
        assert page(limit=50) == ids
        assert page(limit=10, offset=25) == ids[25:]

    def test_trace_ids_name_tasks_too(self, ask, upstream):
        settle(finished_item("t1", trace_id="a"), finished_item("t2", trace_id="b"))
        answer = ask(action="retrieve_batch", trace_ids=["b", "a"], ids=["x"]).json
        assert [one["id"] for one in answer["items"]] == ["t2", "t1"]
        assert upstream.received == []


class TestList:
    def test_one_answer_serves_all_who_ask_within_seconds(self, ask, upstream):
        upstream.answer = says(item("t1"))
        asked = {"action": "retrieve_batch", "user_id": "u", "created_at_min": 1, "limit": 5}
        answers = [ask(**asked) for _ in range(5)]
        assert [one["id"] for one in answers[-1].json["items"]] == ["t1"]
        assert [request.json for request in upstream.received] == [asked]
        ask(**asked | {"user_id": "another"})
        assert len(upstream.received) == 2

    def test_the_ledger_knows_results_before_the_list_is_asked_for_again(self, ask, upstream):
        open_task("t1")
        upstream.answer = says(item("t1", request={"callback_url": OURS}), item("theirs"))
        assert [one["response"] for one in ask(action="retrieve_batch").json["items"]] == [{}, {}]
        record(body("t1"))
        answer = ask(action="retrieve_batch").json
        assert answer["items"][0]["response"]["image_url"] == "https://x/1.png"
        assert answer["count"] == 2
        assert len(upstream.received) == 1

    def test_while_upstream_fails_the_last_answer_counts(self, ask, upstream, monkeypatch):
        upstream.answer = says(item("t1"))
        ask(action="retrieve_batch")
        monkeypatch.setattr(unknown, "LIST_FRESH_FOR_SECONDS", 0.0)
        upstream.answer = lambda _, connection: connection.send_json({}, 503)
        answer = ask(action="retrieve_batch")
        assert (answer.status_code, len(answer.json["items"]), len(upstream.received)) == (200, 1, 2)


class TestOtherActions:
    def test_they_are_relayed_as_they_are(self, ask, upstream):
        upstream.answer = lambda _, connection: connection.send_json({"id": "t1", "deleted": True}, 202)
        answer = ask(action="delete", id="t1", user_id="u")
        assert (answer.status_code, answer.json) == (202, {"id": "t1", "deleted": True})
        assert upstream.received[0].json == {"action": "delete", "id": "t1", "user_id": "u"}

    @pytest.mark.parametrize("sent", [b"", b"[]", b"{", b'{"action": "retrieve"}', b'{"ids": ["x"]}'])
    def test_what_is_no_look_up_is_upstreams_to_refuse(self, gateway, auth, upstream, sent):
        upstream.answer = lambda _, connection: connection.send_json({"error": {"code": "bad_request"}}, 400)
        answer = gateway.post(PATH, data=sent, headers=auth)
        assert (answer.status_code, upstream.received[0].body) == (400, sent)

    def test_a_key_that_may_only_read_may_look_up_and_nothing_else(self, make_client, upstream):
        key = "ro_key-that-only-reads"
        client = make_client(ACEDATACLOUD_API_BASE_URL=upstream.url, API_KEY=f"one:{key}")
        headers = {"Authorization": f"Bearer {key}"}
        settle(finished_item("t1"))
        assert client.post(PATH, json={"id": "t1"}, headers=headers).status_code == 200
        refused = client.post(PATH, json={"action": "delete", "id": "t1"}, headers=headers)
        assert (refused.status_code, refused.json["error"]["code"]) == (403, "forbidden")
        assert "no look-up that Backstop knows" in refused.json["error"]["message"]
        assert upstream.received == []

    def test_a_stranger_is_told_nothing(self, gateway, upstream):
        settle(finished_item("t1"))
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            answer = gateway.post(PATH, json={"id": "t1"}, headers=headers)
            assert (answer.status_code, answer.json["error"]["code"]) == (401, "invalid_token")
        assert upstream.received == []


class TestServicesOfOtherForms:
    def test_one_that_takes_one_id_is_asked_by_the_name_that_it_uses(self, gateway, auth, upstream):
        flat = sample("services/digital-human_poll_flat.json")
        task_id = flat["task_id"]
        open_task(task_id, service="digital-human")
        upstream.answer = lambda _, connection: connection.send_json(flat)
        for _ in range(2):
            answer = gateway.post("/digital-human/tasks", json={"task_id": task_id}, headers=auth)
            assert answer.json == flat
        assert [request.json for request in upstream.received] == [{"action": "retrieve", "task_id": task_id}]

    def test_a_404_stays_where_the_services_clients_expect_it(self, gateway, auth, upstream):
        unknown = sample("services/digital-human_unknown_404.json")
        upstream.answer = lambda _, connection: connection.send_json(unknown, 404)
        answer = gateway.post("/digital-human/tasks", json={"task_id": "x"}, headers=auth)
        assert (answer.status_code, answer.json) == (404, unknown)
        assert upstream.received[0].json == {"task_id": "x"}

    @pytest.mark.parametrize("is_known", [True, False])
    def test_an_item_stands_under_the_name_that_upstream_uses(self, gateway, auth, upstream, is_known):
        told = sample("services/minimax_retrieve_finished.json")
        task_id = told["task"]["id"]
        if is_known:
            open_task(task_id, service="minimax")
        upstream.answer = lambda request, connection: connection.send_json(
            told if request.json["action"] == "retrieve" else {"items": [told["task"]], "total": 1}
        )

        def ask(**asked: Any) -> Any:
            return gateway.post("/minimax/tasks", json=asked, headers=auth).json

        assert ask(action="retrieve", id=task_id) == told
        assert ask(action="retrieve_batch", ids=[task_id]) == {"items": [told["task"]], "total": 1}
        assert len(upstream.received) == (1 if is_known else 2)

    def test_a_running_task_of_another_service_has_upstreams_own_form(self, gateway, auth, upstream):
        open_task("t1", service="seedream")
        upstream.answer = says({"id": "t1", "request": {"prompt": "x"}, "response": None})
        answer = gateway.post("/seedream/tasks", json={"id": "t1"}, headers=auth)
        assert answer.json == {"id": "t1", "request": {"prompt": "x"}, "response": None}

    def test_a_service_without_look_ups_is_relayed(self, gateway, auth, upstream):
        upstream.answer = lambda _, connection: connection.send_json({"error": {"code": "no_api"}}, 404)
        for path in ("/kickart/tasks", "/captcha/tasks"):
            answer = gateway.post(path, json={"id": "t1"}, headers=auth)
            assert (answer.status_code, answer.json) == (404, {"error": {"code": "no_api"}})
            assert upstream.received[-1].target == path

    def test_a_task_of_another_service_is_not_shown(self, ask, upstream):
        settle(finished_item("t1"), service="suno")
        assert ask(id="t1").json == {}
        assert len(upstream.received) == 1
