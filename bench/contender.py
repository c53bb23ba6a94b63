"""Who is measured: Backstop on both databases, and the applications beside it, all served in the same way."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bench.processes import REPOSITORY, environment, run_python

Kind = Literal["sqlite", "postgresql"]

_OURS = "gunicorn.conf.py"
_SHARED = "bench/contenders/gunicorn.conf.py"


@dataclass(frozen=True)
class Contender:
    """An application, the database whose gunicorn settings it is served with, and the ledger it keeps."""

    name: str
    title: str
    database: Kind
    ledger: Literal["backstop", "textbook"] | None
    app: str
    config: str = _SHARED
    options: tuple[str, ...] = ()


NOTHING = Contender(
    "nothing", "Flask that does nothing, as for SQLite", "sqlite", None, "bench.contenders.nothing:app"
)
# Beside Backstop on PostgreSQL, where its settings are others.
NOTHING_POSTGRESQL = Contender(
    "nothing-postgresql",
    "Flask that does nothing, as for PostgreSQL",
    "postgresql",
    None,
    "bench.contenders.nothing:app",
)
SQLITE = Contender("backstop-sqlite", "Backstop on SQLite", "sqlite", "backstop", "wsgi:app", _OURS)
POSTGRESQL = Contender(
    "backstop-postgresql", "Backstop on PostgreSQL", "postgresql", "backstop", "wsgi:app", _OURS
)
TEXTBOOK = Contender(
    "textbook-flask",
    "Textbook Flask + Flask-SQLAlchemy, SQLite",
    "sqlite",
    "textbook",
    "bench.contenders.textbook_flask:app",
)
TEXTBOOK_FASTAPI = Contender(
    "textbook-fastapi",
    "Textbook FastAPI + SQLAlchemy, SQLite",
    "sqlite",
    "textbook",
    "bench.contenders.textbook_fastapi:app",
    options=("--worker-class", "uvicorn_worker.UvicornWorker"),
)
CONTENDERS = (NOTHING, SQLITE, TEXTBOOK, TEXTBOOK_FASTAPI, NOTHING_POSTGRESQL, POSTGRESQL)


def ceiling_of(contender: Contender) -> Contender:
    """Return the one that does nothing on the same gunicorn settings."""
    return NOTHING if contender.database == "sqlite" else NOTHING_POSTGRESQL


@cache
def served_with(kind: Kind) -> dict[str, Any]:
    """Return the gunicorn settings that Backstop picks for a database when nothing is set."""
    url = {"sqlite": "sqlite:///backstop.db", "postgresql": "postgresql://host/backstop"}[kind]
    code = (
        "import json, runpy, sys; ours = runpy.run_path(sys.argv[1]);"
        "print(json.dumps({name: ours[name] for name in ('workers', 'threads')}))"
    )
    # Not in the repository: somebody's .env would be read there.
    printed = run_python(Path("/"), environment(url), "-c", code, str(REPOSITORY / _OURS))
    settings: dict[str, Any] = json.loads(printed)
    return settings
