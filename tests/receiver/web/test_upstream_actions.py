"""Orders to ask upstream: by the API, by the overview's buttons and by commands."""

import logging
from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import pauses, returns
from receiver.ledger.models import Pause
from tests import factories
from tests.conftest import API_KEY
from tests.html import csrf_token, run_now, sign_in, words

HERE = {"PUBLIC_URL": "https://backstop.example.com"}


def pause(service: str = "") -> None:
    """Pause asking as an hour ago; the next probe is far off."""
    pauses.pause_account("upstream answered 401: bad token", utcnow() - timedelta(hours=1), service)
    Pause.update(next_probe_at=utcnow() + timedelta(minutes=14)).execute()


def due() -> list[str]:
    return pauses.due_probes(utcnow())


@pytest.fixture
def run(make_client):
    runner = make_client(**HERE).application.test_cli_runner()
    return lambda *arguments: runner.invoke(args=arguments)


@pytest.mark.parametrize("service", ["", "suno"])
def test_a_probe_is_due_at_once_and_the_pause_goes_on_until_upstream_answers(client, auth, service, caplog):
    caplog.set_level(logging.INFO)
    pause(service)
    assert due() == []
    answer = client.post("/api/upstream/probe", headers=auth)
    assert (answer.status_code, list(answer.json)) == (202, ["ordered_at"])
    assert due() == [service]
    assert pauses.current_pause(utcnow(), service or "midjourney") is not None
    assert returns.unfollowed() == 1  # a discovery probes where no task is due
    assert "A probe of upstream is ordered" in caplog.text


def test_there_is_nothing_to_probe_without_a_pause(client, auth):
    answer = client.post("/api/upstream/probe", headers=auth)
    assert (answer.status_code, answer.json["error"]["code"]) == (409, "conflict")
    assert "Upstream is not paused" in answer.json["error"]["message"]
    assert returns.unfollowed() is None


def test_a_time_that_upstream_has_named_is_kept(client, auth):
    pauses.throttle("upstream answered 429", timedelta(minutes=5), utcnow())
    answer = client.post("/api/upstream/probe", headers=auth)
    assert answer.status_code == 409
    assert "Upstream wants no look-ups until " in answer.json["error"]["message"]
    assert not pauses.may_ask(utcnow())


def test_a_discovery_is_ordered(make_client, auth, caplog):
    caplog.set_level(logging.INFO)
    assert make_client(**HERE).post("/api/upstream/discover", headers=auth).status_code == 202
    assert "A discovery is ordered" in caplog.text
    assert returns.unfollowed() == 1


def test_no_discovery_is_ordered_without_this_deployments_address(client, auth):
    answer = client.post("/api/upstream/discover", headers=auth)
    assert (answer.status_code, "PUBLIC_URL is not set" in answer.json["error"]["message"]) == (409, True)
    assert returns.unfollowed() is None


def test_the_overview_has_a_button_for_each_where_it_helps(make_client):
    client = make_client(**HERE)
    sign_in(client, API_KEY)
    factories.register("t1")
    run_now()
    page = client.get("/").text
    assert ("Discover now" in page, "Ask now" in page) == (True, False)
    pause()
    page = client.get("/").text
    assert "Ask now" in page
    form = {"csrf_token": csrf_token(page)}
    answer = client.post("/upstream", data=form | {"do": "probe"})
    assert (answer.status_code, answer.location, due()) == (303, "/", [""])
    assert client.post("/upstream", data=form | {"do": "discover"}).status_code == 303
    assert returns.unfollowed() == 2
    answer = client.post("/upstream", data=form | {"do": "x"})
    assert (answer.status_code, "do must be probe or discover" in words(answer.text)) == (400, True)
    assert client.post("/upstream", data={"do": "probe"}).status_code == 400


def test_the_commands_say_who_follows_or_that_nobody_does(run):
    told = run("probe")
    assert (told.exit_code, "Upstream is not paused" in told.stderr) == (1, True)
    pause()
    told = run("probe")
    assert (told.exit_code, told.stdout) == (0, "ordered\n")
    assert "Nobody follows it yet: the reconciler has never run. Start it: python -m reconcile" in told.stderr
    assert due() == [""]
    run_now()
    assert run("discover").stdout == "ordered: the reconciler discovers within a minute\n"
    assert run("discover", "--json").stdout.startswith('{\n  "ordered_at": "')
