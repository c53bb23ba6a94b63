"""Requests that wait; what many of them and their clients do to a real worker is in tests/test_waiting.py."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from unittest import mock

import psycopg
import pytest
from flask.testing import FlaskClient
from peewee import OperationalError
from werkzeug.test import TestResponse

from receiver.clock import utcnow
from receiver.web import waiting
from receiver.web.waiting import Waiting, waiting_of
from tests.conftest import CALLBACK_TOKEN
from tests.factories import DAY, body, give_up, progress_body, record, register
from tests.processes import wait_until

Ask = Callable[[str], "Future[TestResponse]"]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks so often that no test waits for it."""
    monkeypatch.setattr(waiting, "LOOK_EVERY_SECONDS", 0.05)


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks so seldom that no test lives to see it, unless something brings it forward."""
    monkeypatch.setattr(waiting, "LOOK_EVERY_SECONDS", 60.0)


@pytest.fixture
def of_app(client: FlaskClient) -> Iterator[Waiting]:
    """The waiting requests of the application."""
    yield waiting_of(client.application)
    waiting_of(client.application).end()


@pytest.fixture
def ask(client: FlaskClient, of_app: Waiting, auth: dict[str, str]) -> Iterator[Ask]:
    """Asks in a thread: ask("/api/tasks/t1?wait=9")."""
    with ThreadPoolExecutor(8) as threads:
        yield lambda path: threads.submit(lambda: client.application.test_client().get(path, headers=auth))
        of_app.end()


def begin_to_wait(ask: Ask, of_app: Waiting, path: str) -> "Future[TestResponse]":
    """Ask, and return once the request waits."""
    before, asked = of_app.count, ask(path)
    wait_until(lambda: of_app.count == before + 1 or asked.done(), every=0.005)
    assert not asked.done(), asked.result().text
    return asked


def shown(asked: "Future[TestResponse]") -> Any:
    answer = asked.result(timeout=20)
    assert answer.status_code == 200, answer.text
    return answer.json


@pytest.mark.usefixtures("often")
class TestForATask:
    def test_it_is_answered_when_another_process_settles_the_task(self, ask, of_app):
        register("t1", "t2")
        first, second = (begin_to_wait(ask, of_app, f"/api/tasks/t{n}?wait=25") for n in (1, 2))
        record(progress_body("t1"))
        record(body("t2"))
        assert shown(second)["status"] == "succeeded"
        assert not first.done()
        record(body("t1"))
        assert (shown(first)["status"], of_app.count) == ("succeeded", 0)

    def test_it_is_answered_with_the_present_state_when_its_time_is_over(self, ask, of_app):
        register("t1")
        began = time.monotonic()
        assert shown(ask("/api/tasks/t1?wait=1"))["status"] == "pending"
        assert time.monotonic() - began >= 1

    @pytest.mark.parametrize(
        ("settle", "status"),
        [(lambda: record(body("t1")), "succeeded"), (lambda: give_up([], utcnow() + 2 * DAY), "expired")],
    )
    def test_one_that_is_settled_or_given_up_is_answered_at_once(self, ask, monkeypatch, settle, status):
        register("t1")
        settle()
        monkeypatch.setattr(Waiting, "until_settled", lambda *_: pytest.fail("it waits"))
        assert shown(ask("/api/tasks/t1?wait=25"))["status"] == status

    def test_an_unknown_one_is_a_404_at_once(self, ask):
        assert ask("/api/tasks/unknown?wait=25").result(timeout=20).status_code == 404

    @pytest.mark.parametrize("wait", ["26", "-1", "1.5", "", "x", "²", "025", "1e1"])
    def test_a_bad_time_is_a_400_that_says_what_a_good_one_is(self, ask, wait):
        register("t1")
        answer = ask(f"/api/tasks/t1?wait={wait}").result(timeout=20)
        assert answer.status_code == 400
        assert answer.json["error"]["message"] == "wait must be a whole number of seconds from 0 to 25."

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer
    def test_it_is_answered_although_a_later_event_was_seen_earlier(self, ask, of_app, ledger):
        register("t1", "t2")
        asked = begin_to_wait(ask, of_app, "/api/tasks/t1?wait=25")
        with psycopg.connect(ledger) as other:
            other.execute("UPDATE task SET status = 'failed' WHERE id = 't1'")
            record(body("t2"))
            assert shown(ask("/api/tasks/t2?wait=25"))["status"] == "succeeded"
            looks = wait_for_looks(of_app)
            assert not asked.done(), looks
            other.commit()
        assert shown(asked)["status"] == "failed"


def wait_for_looks(of_app: Waiting) -> int:
    """Wait until it has looked twice more."""
    looks: list[int] = []
    before = waiting._due
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "_due", lambda some: looks.append(1) or before(some))
        wait_until(lambda: len(looks) > 2, every=0.005)
    return len(looks)


class TestForEvents:
    @pytest.mark.usefixtures("often")
    def test_it_is_answered_with_the_next_event(self, ask, of_app):
        record(body("t1"))
        first = shown(ask("/api/events?wait=25"))
        asked = begin_to_wait(ask, of_app, f"/api/events?wait=25&after={first['next']}")
        wait_for_looks(of_app)
        record(body("t2"))
        assert [item["data"]["task"]["id"] for item in shown(asked)["items"]] == ["t2"]

    def test_a_page_that_stays_empty_tells_where_to_go_on(self, ask):
        record(body("t1"))
        after = shown(ask("/api/events"))["next"]
        assert shown(ask(f"/api/events?wait=1&after={after}")) == {"items": [], "next": after}


@pytest.mark.usefixtures("seldom")
class TestHowItIsAnswered:
    @pytest.mark.parametrize("path", ["/api/tasks/t1?wait=25", "/api/events?wait=25"])
    def test_at_once_when_a_callback_settles_the_task_in_this_process(self, ask, of_app, client, path):
        register("t1")
        asked = begin_to_wait(ask, of_app, path)
        assert client.post(f"/callbacks/{CALLBACK_TOKEN}", data=body("t1")).status_code == 200
        assert "succeeded" in asked.result(timeout=20).text

    def test_a_callback_about_another_task_or_with_progress_brings_no_look(
        self, ask, of_app, client, monkeypatch
    ):
        register("t1")
        hurry = mock.Mock(wraps=of_app._hurry)
        monkeypatch.setattr(of_app, "_hurry", hurry)
        asked = begin_to_wait(ask, of_app, "/api/tasks/t1?wait=25")
        for payload in (body("t2"), progress_body("t1")):
            client.post(f"/callbacks/{CALLBACK_TOKEN}", data=payload)
        assert not hurry.set.called
        client.post(f"/callbacks/{CALLBACK_TOKEN}", data=body("t1"))
        assert (shown(asked)["status"], hurry.set.call_count) == ("succeeded", 1)

    def test_at_once_beyond_the_bound(self, ask, of_app, monkeypatch):
        register("t1")
        monkeypatch.setattr(of_app, "_most", 2)
        waiting_ones = [begin_to_wait(ask, of_app, "/api/tasks/t1?wait=25") for _ in range(2)]
        assert shown(ask("/api/tasks/t1?wait=25"))["status"] == "pending"
        assert shown(ask("/api/events?wait=25"))["items"] == []
        assert not any(asked.done() for asked in waiting_ones)

    def test_at_once_when_the_worker_is_to_end(self, ask, of_app):
        register("t1")
        asked = begin_to_wait(ask, of_app, "/api/tasks/t1?wait=25")
        of_app.end()
        assert shown(asked)["status"] == "pending"
        assert shown(ask("/api/events?wait=25"))["items"] == []


@pytest.mark.usefixtures("often")
class TestTheLook:
    @pytest.mark.parametrize("path", ["/api/tasks/t1?wait=25", "/api/events?wait=25"])
    def test_all_are_answered_with_a_503_when_the_database_is_away(self, ask, of_app, monkeypatch, path):
        register("t1")
        asked = begin_to_wait(ask, of_app, path)

        def fail(*_: Any) -> Any:
            raise OperationalError("it is away")

        monkeypatch.setattr(waiting, "no_longer_pending", fail)
        monkeypatch.setattr(waiting, "newest_event", fail)
        answer = asked.result(timeout=20)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")

    def test_nobody_looks_when_nobody_waits_and_somebody_looks_again(self, ask, of_app):
        for n in (1, 2):
            register(f"t{n}")
            asked = begin_to_wait(ask, of_app, f"/api/tasks/t{n}?wait=25")
            assert of_app._is_looking
            record(body(f"t{n}"))
            shown(asked)
            wait_until(lambda: not of_app._is_looking)

    def test_an_error_of_our_own_ends_the_requests_but_not_the_looking(self, ask, of_app, monkeypatch):
        register("t1", "t2")
        asked = begin_to_wait(ask, of_app, "/api/tasks/t1?wait=25")
        with monkeypatch.context() as broken:
            broken.setattr(waiting, "no_longer_pending", lambda _: 1 / 0)
            assert asked.result(timeout=20).status_code == 503
        asked = begin_to_wait(ask, of_app, "/api/tasks/t2?wait=25")
        record(body("t2"))
        assert shown(asked)["status"] == "succeeded"
