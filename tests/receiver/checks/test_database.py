"""What only PostgreSQL can have wrong. A server of its own is planted with it."""

from collections.abc import Callable

import psycopg
import pytest

from receiver.checks.database import check_database
from receiver.checks.finding import Finding
from receiver.config import Settings

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
def settings(ledger: str, make_settings: Callable[..., Settings]) -> Callable[..., Settings]:
    return make_settings


@pytest.fixture
def name(ledger: str) -> str:
    return ledger.partition("?")[0].rpartition("/")[2]


def found(settings: Settings, word: str) -> Finding:
    (one,) = [one for one in check_database(settings) if word in one.said]
    return one


def test_more_connections_than_the_server_has_are_bad(settings):
    one = found(settings(DATABASE_CONNECTIONS=5000), "DATABASE_CONNECTIONS")
    assert (one.level, "Set DATABASE_CONNECTIONS=" in one.remedy) == ("bad", True)


def test_the_limit_of_the_database_counts_too(settings, name, postgresql_server):
    with psycopg.connect(postgresql_server, autocommit=True) as server:
        server.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 15")
    one = found(settings(), "DATABASE_CONNECTIONS")
    assert (one.level, one.remedy.partition(",")[0]) == ("bad", "Set DATABASE_CONNECTIONS=15")


def test_connections_that_others_use_are_missing(settings, postgresql_server):
    with psycopg.connect(postgresql_server) as other:
        most = other.execute("SELECT current_setting('max_connections')::int - 3").fetchone()[0]
        one = found(settings(DATABASE_CONNECTIONS=most), "DATABASE_CONNECTIONS")
    assert (one.level, "other programs use" in one.said) == ("warning", True)


def test_a_server_that_takes_no_writes_is_bad(settings, name, postgresql_server):
    with psycopg.connect(postgresql_server, autocommit=True) as server:
        server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    one = found(settings(), "takes no writes")
    assert (one.level, "read-only replica" in one.remedy) == ("bad", True)


def test_a_direct_url_that_leads_to_another_database_is_bad(settings, name, ledger):
    one = found(settings(DIRECT_DATABASE_URL=ledger.replace(name, "postgres")), "DIRECT_DATABASE_URL")
    assert (one.level, "another database" in one.said) == ("bad", True)


def test_a_direct_url_that_leads_nowhere_is_bad(settings, name, ledger):
    one = found(settings(DIRECT_DATABASE_URL=ledger.replace(name, "none")), "DIRECT_DATABASE_URL")
    assert (one.level, "no migration can run" in one.remedy) == ("bad", True)


def test_a_direct_url_to_the_same_database_is_good(settings, ledger):
    assert found(settings(DIRECT_DATABASE_URL=ledger), "DIRECT_DATABASE_URL").level == "good"


def test_it_tells_the_pooler_and_the_direct_way_apart(settings, ledger, pooler, make_settings):
    assert found(settings(), "PostgreSQL").said.endswith("reached directly")
    url = pooler.before(ledger)
    one = found(make_settings(DIRECT_DATABASE_URL=url), "DIRECT_DATABASE_URL")
    assert (one.level, "through a pooler" in one.said) == ("warning", True)
