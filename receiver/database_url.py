"""What a database's URL says: everything in it may be percent-encoded."""

import os
from typing import Any
from urllib.parse import unquote, urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

# Platforms' URLs have them for another program (Prisma). libpq refuses what it does not know.
_NOT_OF_LIBPQ = ("pgbouncer=", "connection_limit=", "pool_timeout=")


def postgresql_parameters(url: str) -> dict[str, Any]:
    """Return libpq's parameters of a PostgreSQL URL. Raises ValueError, which does not tell the URL."""
    parts = urlsplit(url)  # raises ValueError too
    query = "&".join(pair for pair in parts.query.split("&") if not pair.startswith(_NOT_OF_LIBPQ))
    try:
        parameters = conninfo_to_dict(parts._replace(query=query).geturl())
    except ProgrammingError:
        raise ValueError("it is no URL of a PostgreSQL database") from None
    if not all(port.isdigit() for port in str(parameters.get("port", 5432)).split(",")):
        raise ValueError("its port is no number")
    return parameters


def sqlite_path(url: str) -> str:
    """Return the path of the file that a SQLite URL names."""
    path = urlsplit(url).path[1:]
    # Before, names were not decoded: a ledger that lies under such a name stays in use.
    return path if os.path.exists(path) else unquote(path)
