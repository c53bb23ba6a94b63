"""The commands of the operator about forwards, with a real reconciler's forwarder where something is sent."""

import json
import random
import threading
from datetime import timedelta

import pytest
from peewee import fn
from standardwebhooks import Webhook

from receiver.app import create_app
from receiver.clock import Clock, utcnow
from receiver.commands import resending as commands
from receiver.ledger.models import Forward, Resending
from reconcile.forward import Forwarder, sender_for
from tests.factories import create_endpoint, create_forward
from tests.processes import wait_until
from tests.sink import Sink, reply

NOW = utcnow().replace(microsecond=0)
MINUTE = timedelta(minutes=1)
SECRET = "whsec_" + "c2VjcmV0" * 4


@pytest.fixture
def sink():
    with Sink() as sink:
        yield sink


@pytest.fixture
def settings(ledger, make_settings, sink):
    return make_settings(FORWARD_URL=f"{sink.url}/hook", FORWARD_SECRET=SECRET)


@pytest.fixture
def run(settings, monkeypatch):
    """Runs a command: run("list", "--json")."""
    monkeypatch.setattr(commands, "_LOOK_EVERY_SECONDS", 0.02)
    runner = create_app(settings).test_cli_runner()
    return lambda *arguments: runner.invoke(args=["forward", *arguments])


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "nothing sent yet"),
        ({"succeeded_at": NOW}, "working"),
        ({"failing_since": NOW, "failure": "HTTP 500"}, "failing since NOW, lately with “HTTP 500”"),
        ({"held_at": NOW, "held_because": "gone"}, "held since NOW"),
        ({"held_at": NOW, "held_because": "person"}, "paused since NOW"),
        ({"retired_at": NOW, "held_at": NOW, "held_because": "gone"}, "not in FORWARD_URL"),
    ],
)
def test_endpoints_are_listed_with_how_they_stand(run, fields, told):
    create_endpoint(**fields)
    assert f"  {told.replace('NOW', f'{NOW:%Y-%m-%d %H:%M:%S}')}  https://app.example/hook" in (
        run("endpoints").output
    )


@pytest.fixture
def forwarding(run, settings):
    """A forwarder that is at work, as in the reconciler."""
    stop, sender = threading.Event(), sender_for(settings)
    forwarder = Forwarder(settings, sender, Clock(), random.Random(1), stop)

    def work() -> None:
        while not stop.wait(0.02):
            forwarder.run()

    thread = threading.Thread(target=work)
    forwarder.run()
    thread.start()
    yield
    stop.set()
    thread.join()
    sender.close()


class TestTest:
    def test_it_posts_to_each_address_and_shows_the_answers(self, run, sink):
        sink.always = reply(200, b"thanks")
        result = run("test")
        assert result.exit_code == 0, result.output
        assert result.output.startswith(f"{sink.url}/hook: delivered in ")
        assert result.output.endswith(" ms: HTTP 200, thanks\n")
        Webhook(SECRET).verify(sink.received[0].body, sink.received[0].headers)

    def test_it_fails_when_one_does_not_take_it(self, run, sink):
        sink.always = reply(500, b"oh no")
        result = run("test", "--json")
        assert result.exit_code == 1
        (told,) = json.loads(result.stdout)
        assert (told["delivered"], told["answered"]["status"]) == (False, 500)
        assert len(sink.received) == 1

    def test_of_one_endpoint(self, run, sink):
        assert "No such endpoint" in run("test", "--endpoint", "1").output
        create_endpoint(f"{sink.url}/other")
        assert run("test", "--endpoint", "1").exit_code == 0
        assert sink.received[0].line == "POST /other HTTP/1.1"

    def test_without_forward_url_it_says_so(self, ledger, make_settings):
        result = create_app(make_settings()).test_cli_runner().invoke(args=["forward", "test"])
        assert (result.exit_code, "FORWARD_URL is not set" in result.output) == (1, True)


class TestList:
    def test_it_lists_what_the_options_choose_newest_first(self, run):
        ids = [
            create_forward(status="failed", cause="HTTP 500", created_at=NOW - n * MINUTE).id
            for n in range(4)
        ]
        create_forward(created_at=NOW)
        arguments = (
            "--status",
            "failed",
            "--since",
            (NOW - 2.5 * MINUTE).isoformat(),
            "--until",
            NOW.isoformat(),
        )
        told = json.loads(run("list", "--json", *arguments).stdout)
        assert [item["id"] for item in told] == ids[1:3]
        lines = run("list", "--limit", "2").output.splitlines()
        assert len(lines) == 2
        assert ("succeeded" in lines[0], "t1" in lines[0]) == (True, True)
        assert "  0 attempts  " in lines[0]

    def test_it_counts_one_attempt_as_one(self, run):
        create_forward(attempts=1)
        assert "  1 attempt  " in run("list").output

    def test_it_says_when_there_are_none(self, run):
        result = run("list")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No forwards.\n")

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (("--status", "lost"), "'lost' is not one of"),
            (("--since", "soon"), "soon"),
            (("--endpoint", "x"), "endpoint must be the number"),
            (("--since", "1h", "--until", "2h"), "since must not be after until"),
        ],
    )
    def test_bad_options_are_named(self, run, arguments, complaint):
        for command in ("list", "resend"):
            result = run(command, *arguments)
            assert result.exit_code in (1, 2)
            assert complaint in result.output


class TestResend:
    @pytest.mark.usefixtures("forwarding")
    def test_it_sends_again_tells_how_far_it_is_and_ends(self, run, sink, settings):
        (url,) = settings.forward_urls
        for n in range(5):
            create_forward(endpoint=create_endpoint(url), task_id=f"t{n}", status="failed", created_at=NOW)
        result = run("resend", "--status", "failed", "--rate", "50", "--json")
        assert result.exit_code == 0, result.output
        told = json.loads(result.stdout)
        assert (told["total"], told["done"], told["filter"]) == (5, 5, {"status": "failed"})
        lines = result.stderr.splitlines()
        assert lines[0] == "Sending 5 again, 50 a second. Ctrl-C stops that."
        assert lines[1].endswith(" of 5")
        assert len(sink.received) <= 5
        assert Forward.select().where(Forward.status == "resent").count() == 5
        newest = Forward.select(fn.MAX(Forward.id)).scalar()
        wait_until(lambda: "  HTTP 200 after " in run("show", str(newest)).stdout)

    @pytest.mark.usefixtures("forwarding")
    def test_it_says_why_some_were_not_sent_again(self, run):
        first = create_forward(status="failed", task_id="t1", created_at=NOW)
        gone = create_endpoint("https://gone.example/hook", retired_at=NOW)
        create_forward(status="failed", endpoint=gone, task_id="t2", created_at=NOW)
        assert first.endpoint.retired_at is None
        result = run("resend", "--status", "failed", "--rate", "50")
        assert result.stdout.startswith("1 of 2 sent again. The other 1 did not need it any more: ")

    def test_ctrl_c_stops_it_and_says_so(self, run, monkeypatch):
        for _ in range(3):
            create_forward(status="failed")

        def interrupt() -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(commands, "_wait", interrupt)
        result = run("resend", "--status", "failed")
        assert (result.exit_code, result.stdout) == (1, "Stopped: 0 of 3 sent again.\n")
        assert Resending.get().stopped_at is not None

    def test_it_says_when_nobody_sends(self, run, monkeypatch):
        monkeypatch.setattr(commands, "_IS_SLOW_AFTER_SECONDS", 0.0)
        create_forward(status="failed")
        steps = iter([0.01] * 60)

        def wait() -> None:
            if next(steps, None) is None:
                raise KeyboardInterrupt
            threading.Event().wait(0.01)

        monkeypatch.setattr(commands, "_wait", wait)
        result = run("resend", "--status", "failed", "--rate", "10")
        assert "Does the reconciler run?" in result.stderr

    def test_one_is_named_by_its_number_and_due_at_once(self, run):
        failed = create_forward(status="failed").id
        told = json.loads(run("resend", str(failed), "--json").stdout)
        assert (told["resends"], told["status"]) == (failed, "pending")
        assert run("resend", str(told["id"])).stdout == f"{told['id']}: due now, the reconciler sends it\n"
        assert "No such forward" in run("resend", "99").stderr
        assert run("resend", str(failed), "--status", "failed").exit_code == 2

    def test_without_a_filter_it_sends_nothing(self, run):
        create_forward(status="delivered")
        result = run("resend")
        assert (result.exit_code, "which forwards" in result.output) == (1, True)
        assert Resending.select().count() == 0


class TestResendings:
    def test_they_are_listed_and_stopped(self, run, client, auth):
        create_forward(status="failed")
        order = {"status": "failed", "rate": 1}
        number = client.post("/api/forwards/resend", json=order, headers=auth).json["id"]
        told = json.loads(run("resendings", "--json").stdout)
        assert told == client.get("/api/resendings", headers=auth).json["items"]
        (line,) = run("resendings").stdout.splitlines()
        assert line.split()[3:] == ["at", "work", "0", "of", "1", "status=failed"]
        assert "stopped" in run("stop", str(number)).stdout
        again = run("stop", str(number))
        assert (again.exit_code, again.stderr) == (1, "Error: This resending has ended.\n")
        assert "No such resending" in run("stop", "99").stderr

    def test_it_says_when_there_are_none(self, run):
        assert run("resendings").stderr == "No resendings.\n"


class TestShow:
    def test_a_forward_is_told_with_its_attempts(self, run, client, auth):
        number = create_forward(status="failed", cause="HTTP 500", task_id="t1").id
        told = run("show", str(number)).stdout
        assert told.startswith(f"{number}: failed\n")
        assert "of task t1" in told
        assert "HTTP 500" in told
        item = client.get(f"/api/forwards/{number}", headers=auth).json
        assert json.loads(run("show", str(number), "--json").stdout) == item
        assert "next attempt" not in told
        assert "\nnext attempt  2" in run("show", str(create_forward().id)).stdout


@pytest.mark.parametrize("command", [(), ("test",), ("list",), ("resend",)])
def test_each_has_a_help_text(run, command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


def test_a_database_that_is_away_is_told_in_words(run):
    from receiver.ledger.models import database

    database.execute_sql("DELETE FROM schema_migration")
    result = run("list")
    assert (result.exit_code, "flask --app wsgi migrate" in result.output) == (1, True)


def test_a_task_id_cannot_steer_the_terminal(run):
    create_forward(task_id="\x1b[31mred")
    told = run("list").stdout
    assert "\\x1b[31mred" in told
    assert "\x1b" not in told
