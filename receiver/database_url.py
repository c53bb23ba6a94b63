"""Parses database URLs, whose parts may be percent-encoded."""

import os
from typing import Any
from urllib.parse import unquote, urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

# Some platforms add these parameters for Prisma. libpq rejects unknown parameters.
_NOT_OF_LIBPQ = ("pgbouncer=", "connection_limit=", "pool_timeout=")


def postgresql_parameters(url: str) -> dict[str, Any]:
    """Return a PostgreSQL URL as libpq's parameters. Raises ValueError, whose message omits the URL."""
    parts = urlsplit(url)  # raises ValueError too
    query = "&".join(pair for pair in parts.query.split("&") if not pair.startswith(_NOT_OF_LIBPQ))
    try:
        parameters = conninfo_to_dict(parts._replace(query=query).geturl())
    except ProgrammingError:
        raise ValueError("it is not a PostgreSQL URL") from None
    if not all(port.isdigit() for port in str(parameters.get("port", 5432)).split(",")):
        raise ValueError("its port is not a number")
    return parameters


def sqlite_path(url: str) -> str:
    """Return the file path in a SQLite URL."""
    path = urlsplit(url).path[1:]
    # Earlier versions did not decode the path: keep using a ledger that has such a name.
    return path if os.path.exists(path) else unquote(path)
