"""Misconfigurations, planted one by one: `check` names each of them with its remedy, and nothing else as bad."""

import errno
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import peewee
import pytest

from receiver.app import create_app
from receiver.checks import database as database_checks
from receiver.checks import disk
from receiver.clock import utcnow
from receiver.ledger import refusals
from receiver.ledger.engine import db
from receiver.ledger.models import Endpoint, ReconcileRun, database
from receiver.ledger.refusals import Refused
from receiver.ledger.store import Callback
from receiver.spool.spool import Spool
from receiver.web.guesses import TooManyGuesses
from receiver.web.probe import answer_to
from tests.conftest import API_KEY, CALLBACK_TOKEN
from tests.factories import create_forward
from tests.processes import free_port
from tests.sink import Sink, reply
from tests.upstream import StandIn

NOW = utcnow().replace(microsecond=0)
SECRET = "whsec_" + "c2VjcmV0" * 4
ON_A_DISK = "/dev/vda / ext4 rw 0 0\n"


@dataclass
class World:
    """A deployment that is right in every point, until something is planted."""

    public: Sink  # what answers at PUBLIC_URL
    app: Sink  # the customer's
    stand_in: StandIn
    monkeypatch: pytest.MonkeyPatch
    directory: Path
    variables: dict[str, str]
    opened: ExitStack
    options: tuple[str, ...] = ()

    def set(self, **variables: str) -> None:
        self.variables |= variables


def receives(sink: Sink, connection: socket.socket) -> bool:
    """Answer as the receiver with our token does."""
    answer = answer_to(sink.present[connection].body, CALLBACK_TOKEN)
    return reply(200, json.dumps(answer).encode())(sink, connection)


@pytest.fixture
def world(ledger: str, stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with Sink(receives) as public, Sink() as app, ExitStack() as opened:
        ReconcileRun.create(reconciler="here:1", started_at=utcnow(), finished_at=utcnow())
        monkeypatch.setattr(disk, "read_mounts", lambda: ON_A_DISK)
        (tmp_path / "spool").mkdir()
        variables = {
            "PUBLIC_URL": public.url,
            "ACEDATACLOUD_API_BASE_URL": stand_in.url,
            "FORWARD_URL": f"{app.url}/hook",
            "FORWARD_SECRET": SECRET,
        }
        yield World(public, app, stand_in, monkeypatch, tmp_path, variables, opened)


@pytest.fixture
def check(world: World, make_settings: Any) -> Callable[[], tuple[int, list[dict[str, Any]]]]:
    """Run the command and return its exit code and its findings."""

    def check() -> tuple[int, list[dict[str, Any]]]:
        database.obj.close_all()
        world.monkeypatch.setattr(db, "_bound_to", None)  # a process for each database would be slow
        runner = create_app(make_settings(**world.variables)).test_cli_runner()
        result = runner.invoke(args=["check", "--json", *world.options])
        assert isinstance(result.exception, SystemExit | None), result.exc_info
        told = json.loads(result.stdout)
        assert told["ok"] is (result.exit_code == 0)
        return result.exit_code, told["findings"]

    return check


def test_nothing_is_bad_where_all_is_right(check):
    code, findings = check()
    assert {finding["level"] for finding in findings} == {"good"}, findings
    assert code == 0
    told = {finding["check"] for finding in findings}
    of_ledger = {"database", "schema", "reconciler", "endpoints"}
    assert told - {"database file"} == of_ledger | {
        *("settings", "spool", "disk", "upstream", "clock", "callback URL", "overview")
    }


PLANTED: dict[str, tuple[Callable[[World], None], str, str, str]] = {}
Plant = Callable[[World], None]


def planted(check: str, level: str, remedy: str) -> Callable[[Plant], Plant]:
    """Note a misconfiguration: in which check it must be told, how bad it is, and words of its remedy."""

    def note(plant: Plant) -> Plant:
        PLANTED[plant.__name__] = (plant, check, level, remedy)
        return plant

    return note


@planted("settings", "warning", "Set PUBLIC_URL")
def no_public_url(world: World) -> None:
    world.set(PUBLIC_URL="")


@planted("settings", "bad", "Copy ACEDATACLOUD_API_TOKEN")
def no_token(world: World) -> None:
    world.set(ACEDATACLOUD_API_TOKEN="")


@planted("settings", "bad", "Make a new API_KEY")
def one_secret_for_both(world: World) -> None:
    world.set(CALLBACK_TOKEN=f"{CALLBACK_TOKEN},{API_KEY}")


@planted("settings", "bad", "Set FORWARD_URL to an address of your app")
def forwards_to_itself(world: World) -> None:
    world.set(FORWARD_URL=f"{world.public.url}/callbacks/{CALLBACK_TOKEN}")


@planted("settings", "warning", "Use https:// in FORWARD_URL")
def forwards_unencrypted(world: World) -> None:
    world.set(FORWARD_URL="http://app.example/hook")


@planted("settings", "warning", "RECONCILE_GIVE_UP_AFTER=86400")
def gives_up_too_soon(world: World) -> None:
    world.set(RECONCILE_GIVE_UP_AFTER="60")


@planted("settings", "warning", "Correct its name")
def misspelt_variable(world: World) -> None:
    world.set(FORWARD_URLS=f"https://{API_KEY}.example")


@planted("settings", "warning", "Unset RECONCILE_INTERVAL")
def looks_seldom(world: World) -> None:
    world.set(RECONCILE_INTERVAL="301")


@planted("settings", "warning", "Unset RECONCILE_GRACE")
def begins_late(world: World) -> None:
    world.set(RECONCILE_GRACE="3601")


@planted("settings", "warning", "Unset RECONCILE_LEASE")
def leases_for_long(world: World) -> None:
    world.set(RECONCILE_LEASE="3601")


@planted("settings", "warning", "Set RECONCILE_MAX_RATE=1")
def asks_seldom(world: World) -> None:
    world.set(RECONCILE_MAX_RATE="0.001")


@planted("settings", "warning", "Unset CONFIRM_CALLBACKS")
def believes_forgeries(world: World) -> None:
    world.set(CONFIRM_CALLBACKS="false", FORWARD_WHEN="settled")


@planted("settings", "warning", "Unset MAX_BODY_BYTES")
def cuts_callbacks(world: World) -> None:
    world.set(MAX_BODY_BYTES="1000")


@planted("callback URL", "bad", "Set PUBLIC_URL to the address that it redirects to")
def redirects(world: World) -> None:
    world.public.always = reply(308, Location="https://backstop.example/callbacks/x")


@planted("callback URL", "bad", "Set PUBLIC_URL to this deployment's address")
def another_app(world: World) -> None:
    world.public.always = reply(200, b"<h1>Welcome to nginx!</h1>")


@planted("callback URL", "bad", "Restart the web process if CALLBACK_TOKEN was changed")
def another_token(world: World) -> None:
    error = {"error": {"code": "not_found", "message": "The callback token in this URL is not ours."}}
    world.public.always = reply(404, json.dumps(error).encode())


@planted("callback URL", "bad", "Restart the web process if CALLBACK_TOKEN was changed")
def another_token_and_many_callbacks_with_it(world: World) -> None:
    error = {"error": {"code": "too_many_requests", "message": TooManyGuesses.description}}
    world.public.always = reply(429, json.dumps(error).encode())


@planted("callback URL", "bad", "Let POST requests to /callbacks/ through")
def bot_protection(world: World) -> None:
    world.public.always = reply(403, b"Attention required!")


@planted("callback URL", "bad", "Start the web process, and let the proxy")
def proxy_before_nothing(world: World) -> None:
    world.public.always = reply(502, b"Bad Gateway")


@planted("callback URL", "bad", "Start the web process, and open the way to it")
def nobody_listens(world: World) -> None:
    world.set(PUBLIC_URL=f"http://127.0.0.1:{free_port()}")


@planted("callback URL", "bad", "make the name lead to this machine (DNS)")
def no_such_name(world: World) -> None:
    world.set(PUBLIC_URL="http://backstop.invalid")


@planted("callback URL", "bad", "Get a valid certificate")
def certificate_of_its_own(world: World) -> None:
    key, certificate = world.directory / "key.pem", world.directory / "certificate.pem"
    make = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {key} -out {certificate}"
    subprocess.run([*make.split(), "-subj", "/CN=localhost"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    world.set(PUBLIC_URL=world.opened.enter_context(Sink(tls=context)).url)


@planted("callback URL", "warning", "deploy this version")
def another_version(world: World) -> None:
    def answer(sink: Sink, connection: socket.socket) -> bool:
        told = answer_to(sink.present[connection].body, CALLBACK_TOKEN) or {}
        return reply(200, json.dumps(told | {"version": "0.0.1"}).encode())(sink, connection)

    world.public.always = answer


@planted("upstream", "bad", "is ACEDATACLOUD_API_TOKEN right and enabled")
def wrong_token(world: World) -> None:
    world.set(ACEDATACLOUD_API_TOKEN="wrong")


@planted("upstream", "bad", "is there balance")
def no_balance(world: World) -> None:
    world.stand_in.options.account_error = "used_up"


@planted("upstream", "bad", "Is ACEDATACLOUD_API_BASE_URL right")
def upstream_is_elsewhere(world: World) -> None:
    world.set(ACEDATACLOUD_API_BASE_URL=world.app.url)


@planted("upstream", "bad", "may this machine connect there")
def no_way_to_upstream(world: World) -> None:
    world.set(ACEDATACLOUD_API_BASE_URL=f"http://127.0.0.1:{free_port()}")


@planted("clock", "bad", "NTP")
def wrong_clock(world: World) -> None:
    world.monkeypatch.setattr("receiver.checks.upstream.utcnow", lambda: utcnow() + timedelta(hours=1))


@planted("schema", "bad", "flask --app wsgi migrate")
def schema_behind(world: World) -> None:
    world.monkeypatch.setattr(database_checks, "pending_migrations", lambda: ["0099_next"])


@planted("database", "bad", "correct DATABASE_URL")
def no_database(world: World) -> None:
    world.set(DATABASE_URL=f"postgresql://nobody@127.0.0.1:{free_port()}/none")


@planted("database", "bad", "put it back")
def deleted_file(world: World) -> None:
    world.set(DATABASE_URL=f"sqlite:///{world.directory}/deleted.db")


@planted("database", "bad", "Let this user write")
def read_only_database(world: World) -> None:
    def refuse(now: object) -> None:
        raise peewee.OperationalError("attempt to write a readonly database")

    world.monkeypatch.setattr(refusals, "try_a_write", refuse)


@planted("spool", "bad", "set SPOOL_DIR to another directory")
def no_spool(world: World) -> None:
    (world.directory / "file").touch()
    world.set(SPOOL_DIR=str(world.directory / "file" / "spool"))


@planted("spool", "warning", "correct SPOOL_DIR, or mount the disk")
def new_spool(world: World) -> None:
    world.set(SPOOL_DIR=str(world.directory / "new" / "spool"))


@planted("spool", "bad", "Make room or enlarge the disk.")
def full_spool(world: World) -> None:
    def refuse(spool: Spool) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    world.monkeypatch.setattr(Spool, "try_a_write", refuse)


@planted("spool", "warning", "Set SPOOL_DIR to a directory on a mounted volume")
def spool_in_memory(world: World) -> None:
    spool = world.directory / "memory"
    world.set(SPOOL_DIR=str(spool))
    world.monkeypatch.setattr(disk, "read_mounts", lambda: f"{ON_A_DISK}tmpfs {spool} tmpfs rw 0 0\n")


@planted("spool", "warning", "See that the database answers and the web process runs")
def spool_not_empty(world: World) -> None:
    Spool(world.directory / "spool").append(Callback(body=b"{}", size=2), NOW)


@planted("disk", "bad", "Make room or enlarge the disk")
def disk_full(world: World) -> None:
    usage = namedtuple("usage", "total used free")(2**30, 2**30, 1000)
    world.monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


@planted("reconciler", "bad", "python -m reconcile")
def no_reconciler(world: World) -> None:
    ReconcileRun.update(started_at=NOW - timedelta(hours=1), finished_at=NOW - timedelta(hours=1)).execute()


@planted("endpoints", "bad", "answers 2xx within 15 s")
def app_refuses(world: World) -> None:
    world.app.always = reply(401)
    world.options = ("--send",)


@planted("endpoints", "bad", "resume the endpoint")
def endpoint_held(world: World) -> None:
    Endpoint.create(
        url=f"{world.app.url}/hook",
        is_app=True,
        host="127.0.0.1",
        created_at=NOW,
        held_at=NOW,
        held_because="it answered 410 Gone",
    )


@planted("overview", "warning", "Read on at the overview")
def events_given_up(world: World) -> None:
    create_forward(status="failed")


@planted("overview", "warning", "Read on at the overview")
def callbacks_lost(world: World) -> None:
    refusals.add([Refused("not_kept", 3, utcnow(), utcnow())])


@pytest.mark.parametrize("name", PLANTED)
def test_it_names_what_is_planted_with_its_remedy(name: str, world: World, check):
    plant, in_check, level, remedy = PLANTED[name]
    plant(world)
    code, findings = check()
    told = [finding for finding in findings if finding["level"] != "good"]
    assert [(one["check"], one["level"]) for one in told] == [(in_check, level)], told
    assert remedy in told[0]["remedy"]
    assert code == (1 if level == "bad" else 0)
    assert not {CALLBACK_TOKEN, API_KEY} & set(json.dumps(findings).replace("/", " ").split())


@pytest.mark.parametrize("command", ["check", "status", "tasks", "backup copy.db"])
def test_a_command_makes_no_database_where_the_file_is_not_there(
    command, tmp_path, make_settings, monkeypatch
):
    monkeypatch.setattr(db, "_bound_to", None)
    settings = make_settings(DATABASE_URL=f"sqlite:///{tmp_path}/deleted.db", ACEDATACLOUD_API_TOKEN="")
    told = create_app(settings).test_cli_runner().invoke(args=command.split())
    assert told.exit_code == 1
    assert f"{tmp_path}/deleted.db is not there" in told.output
    assert not list(tmp_path.glob("deleted.db*"))


def test_there_are_twenty_and_more():
    assert len(PLANTED) >= 20
