import pytest

from receiver.database_url import postgresql_parameters, sqlite_path


def test_a_url_is_read_as_libpq_reads_it():
    parameters = postgresql_parameters(
        "postgres://us%40er:p%2Fw%25@%2Fvar%2FRun%2Fpg/my%20ledger?sslmode=require"
    )
    assert parameters == {
        "user": "us@er",
        "password": "p/w%",
        "host": "/var/Run/pg",
        "dbname": "my ledger",
        "sslmode": "require",
    }
    several = postgresql_parameters("postgresql://u@a:5432,b:5433/n?target_session_attrs=read-write")
    assert (several["host"], several["port"]) == ("a,b", "5432,5433")
    assert "pgbouncer" not in postgresql_parameters("postgresql://u@h/n?pgbouncer=true&connection_limit=1")


def test_what_is_no_url_is_refused_without_telling_it():
    for url in (
        "postgresql://u:hidden@h:port/n",
        "postgresql://u:hidden@h/n?hidden=1",
        "postgresql://[hidden/n",
    ):
        with pytest.raises(ValueError, match=r".") as refused:
            postgresql_parameters(url)
        assert "hidden" not in str(refused.value)


def test_the_name_of_a_sqlite_file_is_decoded_unless_one_of_the_encoded_name_is_in_use(tmp_path):
    assert sqlite_path(f"sqlite:///{tmp_path}/my%20ledger.db") == f"{tmp_path}/my ledger.db"
    (tmp_path / "my%20ledger.db").touch()
    assert sqlite_path(f"sqlite:///{tmp_path}/my%20ledger.db") == f"{tmp_path}/my%20ledger.db"
