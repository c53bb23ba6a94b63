"""Writes and reads rows in bulk, straight through the databases' drivers."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import psycopg

# Beside a server that writes.
_BUSY_TIMEOUT_SECONDS = 30
_ROWS_AT_ONCE = 64  # as callbacks come


def is_sqlite(url: str) -> bool:
    """Tell whether a database's URL is one of SQLite."""
    return url.startswith("sqlite:")


def sqlite_path(url: str) -> str:
    """Return the path in the URL of a SQLite database."""
    return url.removeprefix("sqlite:///")


def insert_rows(url: str, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Insert rows; it is not made sure that they are on disk."""
    names = ", ".join(columns)
    if is_sqlite(url):
        with closing(sqlite3.connect(sqlite_path(url))) as file:
            file.execute("PRAGMA synchronous = OFF")
            file.execute("PRAGMA cache_size = -1000000")  # KiB
            marks = ", ".join("?" * len(columns))
            file.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
            file.commit()
        return
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit TO off")
        # In many transactions: what triggers change again and again in one of them is kept in all versions.
        for some in _batched(rows):
            with connection.cursor().copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                for row in some:
                    copy.write_row(row)


def fetch(url: str, query: str) -> list[Any]:
    """Return the rows of a query."""
    if not is_sqlite(url):
        with psycopg.connect(url) as connection:
            return connection.execute(query).fetchall()
    with closing(sqlite3.connect(sqlite_path(url), timeout=_BUSY_TIMEOUT_SECONDS)) as file:
        return file.execute(query).fetchall()


def last_delivery(url: str) -> int:
    """Return the id of the newest delivery, 0 where there is none."""
    ((newest,),) = fetch(url, "SELECT COALESCE(MAX(id), 0) FROM delivery")
    return int(newest)


def deliveries_since(url: str, last: int) -> Counter[str]:
    """Return how many deliveries each task has beyond the one whose id is `last`."""
    query = f"SELECT task_id, COUNT(*) FROM delivery WHERE id > {last} GROUP BY task_id"
    return Counter(dict(fetch(url, query)))


def _batched(rows: Iterable[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    all_rows = iter(rows)
    while some := list(islice(all_rows, _ROWS_AT_ONCE)):
        yield some
